"""Engines: tokens in, tokens out. Nothing here knows text, HTTP or Ray."""
