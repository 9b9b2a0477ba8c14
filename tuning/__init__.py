"""The tuning image: `python -m tuning CONFIG` trains one adapter and pushes it; with `--check` it asks whether that can work."""
