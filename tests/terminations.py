"""What an image left behind as its termination message, understood."""

import json

import pydantic

from serving.config import Failure as ServingFailure
from tuning.config import Failure, Result


def of_tuning(message: str) -> Result | Failure | None:
    """None when it died without a word."""
    try:
        answer = json.loads(message)
        return Failure.model_validate(answer) if "reason" in answer else Result.model_validate(answer)
    except (ValueError, TypeError):
        return None


def of_serving(message: str) -> ServingFailure | None:
    """None when it ended well or died without a word."""
    try:
        return ServingFailure.model_validate_json(message)
    except pydantic.ValidationError:
        return None
