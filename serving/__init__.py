"""The serving image: `python -m serving CONFIG` serves a model with its adapters; `--check` asks if that can work."""
