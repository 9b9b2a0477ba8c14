"""Where the adapter goes, and how nothing is lost on the way: its files, its image, registry, volume, checkpoints."""
