"""The tuning image: `python -m tuning run` trains an adapter and pushes it; `validate` sees whether that can work."""
