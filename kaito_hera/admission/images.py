"""The grammar of image references, as registries take them, and placeholders that nobody has replaced yet."""

import re

from kaito_hera.admission.rule import Case, Rule, matches, matching, quote, quoted

_HERE = "[A-Z0-9]+(?:_[A-Z0-9]+)*_HERE"
"""KAITO's examples are applied as they stand, to look at: ACR_REPO_HERE.azurecr.io/IMAGE_NAME_HERE:0.0.1."""
_LABEL = f"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?|{_HERE})"
_HOST = rf"{_LABEL}(?:[.]{_LABEL})*(?::[0-9]+)?"
_PART = f"(?:[a-z0-9]+(?:(?:[.]|_|__|-+)[a-z0-9]+)*|{_HERE})"
_TAG = "[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_DIGEST = "sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}"
_REFERENCE = rf"(?:{_HOST}/)?{_PART}(?:/{_PART})*(?::{_TAG})?(?:@(?:{_DIGEST}))?"
_PLACEHOLDER = f"(?:[^@]*[./])?{_HERE}(?:[.:/@].*)?"
_UPPER = "[^@]*/[^:@]*[A-Z].*"
"""Capitals behind the host, before the tag."""
_DIGEST_OF_OUTPUT = "[^@]*@.*"

_CASE = "a repository is written in lower-case letters: replace the placeholder, or write it so"
_SHAPE = "write HOST/REPOSITORY:TAG, for example myregistry.azurecr.io/my-adapter:0.0.1"
_REPLACE = "is a placeholder: replace it before this can run"
_CHOSEN = "names a digest, which nobody can choose before the push: write HOST/REPOSITORY:TAG"

_READS = (
    "tuning.input.image",
    "tuning.output.image",
    "tuning.preset.presetOptions.image",
    "inference.preset.presetOptions.image",
    "inference.adapters",
)


def fields(case: Case) -> list[tuple[str, str]]:
    """Every image that the Workspace names, by its field."""
    tuning, inference = case.workspace.tuning, case.workspace.inference
    named: list[tuple[str, str | None]] = []
    if tuning:
        named += [("tuning.input.image", tuning.input.image), ("tuning.output.image", tuning.output.image)]
        named.append(("tuning.preset.presetOptions.image", tuning.preset.options.image))
    if inference and inference.preset:
        named.append(("inference.preset.presetOptions.image", inference.preset.options.image))
    adapters = enumerate(case.workspace.adapters)
    named += [(f"inference.adapters[{at}].source.image", adapter.source.image) for at, adapter in adapters]
    return [(field, image) for field, image in named if image]


_SINGLE = ", ".join(
    f"['{path}', string(object{''.join(f'.?{part}' for part in path.split('.'))}.orValue(''))]" for path in _READS[:4]
)
_ADAPTERS = "object.?inference.?adapters.orValue([])"
_NAMED = (
    f"([{_SINGLE}] + {_ADAPTERS}.map(a, ['inference.adapters[' + string({_ADAPTERS}.indexOf(a)) + '].source.image',"
    " string(a.source.?image.orValue(''))])).filter(f, f[1] != '')"
)
"""The same in CEL: pairs of field and image."""
VARIABLES = {"images": _NAMED}


def _malformed(case: Case) -> list[str]:
    bad = [(field, image) for field, image in fields(case) if not matches(_REFERENCE, image)]
    return [
        f"{field}: {quoted(image)} is no image reference: {_CASE if matches(_UPPER, image) else _SHAPE}"
        for field, image in bad
    ]


def _unreplaced(case: Case) -> list[str]:
    return [f"{field}: {quoted(image)} {_REPLACE}" for field, image in fields(case) if placeholder(image)]


def placeholder(image: str) -> bool:
    """Whether a part of the reference is one of KAITO's examples' placeholders."""
    return matches(_PLACEHOLDER, image) and matches(_REFERENCE, image)


def _chosen(case: Case) -> list[str]:
    image = (case.workspace.tuning and case.workspace.tuning.output.image) or ""
    return [f"tuning.output.image: {quoted(image)} {_CHOSEN}"] if re.search("@", image) else []


_OUTPUT = "object.?tuning.?output.?image.orValue('')"

RULES = (
    Rule(
        "V37 image reference",
        _READS,
        f"variables.images.filter(f, !{matching(_REFERENCE, 'f[1]')}).map(f, f[0] + ': '"
        f" + [f[1]].map(i, {quote('i')})[0] + ' is no image reference: '"
        f" + ({matching(_UPPER, 'f[1]')} ? '{_CASE}' : '{_SHAPE}'))",
        _malformed,
        when="size(variables.images) > 0",
    ),
    Rule(
        "V37 digest of the output",
        ("tuning.output.image",),
        f"[{_OUTPUT}].filter(i, {matching(_DIGEST_OF_OUTPUT, 'i')})"
        f".map(i, 'tuning.output.image: ' + {quote('i')} + ' {_CHOSEN}')",
        _chosen,
    ),
    Rule(
        "V37 placeholder",
        _READS,
        f"variables.images.filter(f, {matching(_PLACEHOLDER, 'f[1]')} && {matching(_REFERENCE, 'f[1]')})"
        f".map(f, f[0] + ': ' + [f[1]].map(i, {quote('i')})[0] + ' {_REPLACE}')",
        _unreplaced,
        when="size(variables.images) > 0",
        severity="warning",
    ),
)
