"""Why a model's files cannot be had: one class per reason that a user reads.

    WeightsError            class name = reason; code = exit code of both images; whether trying again may help
    ├── ModelNotFound       12   no such model, revision or image, or not for this token
    ├── GatedModel          12   the hub gives it to some only
    ├── ModelUnusable       12   it is there, but not as files that can be loaded
    ├── ImageForbidden      30   the registry wants other credentials, or must not be spoken to
    ├── HubUnavailable      40   retry
    ├── RegistryUnavailable 41   retry
    └── StorageTrouble      42   retry: the disk

A message names the field or object, the value seen and the way out.
"""

import contextlib
from typing import ClassVar

from artifacts import errors, strangers


class WeightsError(strangers.Told):
    """Why a model's files cannot be had."""

    code: ClassVar[int]
    retryable: ClassVar[bool] = False

    @property
    def reason(self) -> str:
        """CamelCase reason for a condition."""
        return type(self).__name__


class ModelNotFound(WeightsError):
    """No such model, revision or image, or not for this token."""

    code = 12


class GatedModel(WeightsError):
    """The hub gives it to some only."""

    code = 12


class ModelUnusable(WeightsError):
    """It is there, but not as files that can be loaded."""

    code = 12


class ImageForbidden(WeightsError):
    """The registry wants other credentials, or must not be spoken to."""

    code = 30


class HubUnavailable(WeightsError):
    """The hub does not answer, or not now."""

    code = 40
    retryable = True


class RegistryUnavailable(WeightsError):
    """The registry does not answer, or not now."""

    code = 41
    retryable = True


class StorageTrouble(WeightsError):
    """The disk is full or broken."""

    code = 42
    retryable = True


def of_image(field: str, way_in: str) -> contextlib.AbstractContextManager[None]:
    """Errors within are about the image that a field names; `way_in` is what to do where its registry refuses it."""
    remedies = {errors.Unusable: "make one with `kaito-hera model push`", errors.Denied: way_in}
    return errors.translated(_KINDS, f"{field}: ", remedies)


_KINDS: errors.Table = {
    errors.NotFound: ModelNotFound,
    errors.Unusable: ModelUnusable,
    errors.Denied: ImageForbidden,
    errors.HostRefused: ImageForbidden,
    errors.Away: RegistryUnavailable,
    errors.MachineTrouble: StorageTrouble,
}
