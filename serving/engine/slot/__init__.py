"""Continuous batching on transformers' `forward`: every request has a row of keys and values, and joins at any step."""
