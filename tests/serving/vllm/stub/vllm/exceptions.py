"""Errors of requests."""


class VLLMClientError(Exception):
    """The request cannot be run."""
