"""The tuning image: `python -m tuning CONFIG` trains an adapter and pushes it; `--check` asks whether that can work."""
