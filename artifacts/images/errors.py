"""What can be wrong with an image that somebody named; who asks says which field named it, and what to write there."""

from typing import ClassVar


class ImageError(Exception):
    """Something is wrong with the image, its registry, or this machine."""

    passes: ClassVar[bool] = False
    """Whether asking again unchanged may help."""


class ImageNotFound(ImageError):
    """The registry has no such image, or it is no image's name."""


class ImageUnusable(ImageError):
    """The image is there, and cannot be unpacked into what is wanted of it."""


class AccessDenied(ImageError):
    """The registry wants other credentials."""


class RegistryAway(ImageError):
    """The registry does not answer, or not now."""

    passes = True


class MachineTrouble(ImageError):
    """A full disk, or no skopeo."""

    passes = True
