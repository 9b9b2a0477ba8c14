"""KAITO's own manifests, of every release, and how the installed rules judge them."""
