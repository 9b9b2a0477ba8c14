"""The grammar of image references, as registries take them, and placeholders that nobody has replaced yet."""

import re

from kaito_hera.admission import words
from kaito_hera.admission.rule import Case, Rule, matches, matching, quote, quoted

_HERE = "[A-Z0-9]+(?:_[A-Z0-9]+)*_HERE"
"""KAITO's examples are applied as they stand, to look at: ACR_REPO_HERE.azurecr.io/IMAGE_NAME_HERE:0.0.1."""
_LABEL = f"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?|{_HERE})"
_HOST = rf"(?:{_LABEL}(?:[.]{_LABEL})*|\[[0-9A-Fa-f:.]+\])(?::[0-9]+)?"
_PART = f"(?:[a-z0-9]+(?:(?:[.]|_|__|-+)[a-z0-9]+)*|{_HERE})"
_TAG = "[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_DIGEST = "sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128}"
_REFERENCE = rf"(?:{_HOST}/)?{_PART}(?:/{_PART})*(?::{_TAG})?(?:@(?:{_DIGEST}))?"
_PLACEHOLDER = f"(?:[^@]*[./])?{_HERE}(?:[.:/@].*)?"
_UPPER = "[^@]*/[^:@]*[A-Z].*"
"""Capitals behind the host, before the tag."""
_SCHEME = "[^@]*://.*"
_DIGEST_OF_OUTPUT = "[^@]*@.*"
_LONGEST = 800
"""Letters: a host, a path of 255, a tag and a digest have fewer."""

_CASE = "a repository is written in lower-case letters"
_BARE = "it begins with a host: take the scheme (https://) out"
_SHAPE = "write HOST/REPOSITORY:TAG, for example myregistry.azurecr.io/my-adapter:0.0.1"
_REPLACE = "is a placeholder: replace it before this can run"
_CHOSEN = "names a digest, which nobody can choose before the push: write HOST/REPOSITORY:TAG"

_READS = (
    "tuning.input.image",
    "tuning.output.image",
    "tuning.preset.presetOptions.image",
    "inference.preset.presetOptions.image",
    "inference.adapters",
    "inference.template",
)
_LISTS = ("initContainers", "containers")


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
    return [(field, image) for field, image in [*named, *_of_pod(case)] if image]


def _of_pod(case: Case) -> list[tuple[str, str]]:
    """Of the user's own pod; what is not written as one is the API server's matter."""
    pod, found = words.pod(case) or {}, []
    for name in _LISTS:
        listed = pod[name] if isinstance(pod.get(name), list) else []
        for container in listed:
            image = container.get("image") if isinstance(container, dict) else None
            if isinstance(image, str):
                found.append((f"inference.template.spec.{name}[{listed.index(container)}].image", image))
    return found


_SINGLE = ", ".join(
    f"['{path}', string(object{''.join(f'.?{part}' for part in path.split('.'))}.orValue(''))]" for path in _READS[:4]
)
_ADAPTERS = "object.?inference.?adapters.orValue([])"
_OF_POD = " + ".join(
    f"[{words.POD}].map(p, type(p.?{name}.orValue(0)) == list ? p.{name} : []).map(cs, cs.map(c,"
    f" ['inference.template.spec.{name}[' + string(cs.indexOf(c)) + '].image',"
    " type(c) == map && type(c.?image.orValue(0)) == string ? string(c.image) : '']))[0]"
    for name in _LISTS
)
_NAMED = (
    f"([{_SINGLE}] + {_ADAPTERS}.map(a, ['inference.adapters[' + string({_ADAPTERS}.indexOf(a)) + '].source.image',"
    f" string(a.source.?image.orValue(''))]) + {_OF_POD}).filter(f, f[1] != '')"
)
"""The same in CEL: pairs of field and image."""
VARIABLES = {"images": _NAMED}


def _malformed(case: Case) -> list[str]:
    bad = [(field, image) for field, image in fields(case) if not _parses(image)]
    return [f"{field}: {quoted(image)} is no image reference: {_why(image)}" for field, image in bad]


def _parses(image: str) -> bool:
    return len(image) <= _LONGEST and matches(_REFERENCE, image)


def _why(image: str) -> str:
    if matches(_SCHEME, image):
        return _BARE
    return _CASE if matches(_UPPER, image) else _SHAPE


def _unreplaced(case: Case) -> list[str]:
    return [f"{field}: {quoted(image)} {_REPLACE}" for field, image in fields(case) if placeholder(image)]


def placeholder(image: str) -> bool:
    """Whether a part of the reference is one of KAITO's examples' placeholders."""
    return matches(_PLACEHOLDER, image) and _parses(image)


def _chosen(case: Case) -> list[str]:
    image = (case.workspace.tuning and case.workspace.tuning.output.image) or ""
    return [f"tuning.output.image: {quoted(image)} {_CHOSEN}"] if re.search("@", image) else []


_PARSES = f"f[1].size() <= {_LONGEST} && {matching(_REFERENCE, 'f[1]')}"
_WHY = f"{matching(_SCHEME, 'f[1]')} ? '{_BARE}' : {matching(_UPPER, 'f[1]')} ? '{_CASE}' : '{_SHAPE}'"
_OUTPUT = "object.?tuning.?output.?image.orValue('')"

UNREPLACED = "V37 placeholder"
"""The rule that warns at an apply, since examples are applied to be looked at, and ends the preflight."""

RULES = (
    Rule(
        "V37 image reference",
        _READS,
        f"variables.images.filter(f, !({_PARSES})).map(f, f[0] + ': '"
        f" + [f[1]].map(i, {quote('i')})[0] + ' is no image reference: ' + ({_WHY}))",
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
        UNREPLACED,
        _READS,
        f"variables.images.filter(f, {matching(_PLACEHOLDER, 'f[1]')} && {_PARSES})"
        f".map(f, f[0] + ': ' + [f[1]].map(i, {quote('i')})[0] + ' {_REPLACE}')",
        _unreplaced,
        when="size(variables.images) > 0",
        severity="warning",
    ),
)
