"""The serving image: `python -m serving CONFIG` serves one model with its adapters on port 5000; with `--check` it asks whether that can work."""
