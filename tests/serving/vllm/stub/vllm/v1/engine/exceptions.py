"""The end of the engine."""


class EngineDeadError(Exception):
    """It works no more."""
