"""Annotations, labels and the user's own pod: what the schema cannot say of them."""

from collections.abc import Callable
from typing import Any

from kaito_hera.admission.rule import Case, Rule, Severity, matches, matching, quote, quoted
from kaito_hera.api import annotations
from kaito_hera.api.annotations import KNOWN, Annotation
from kaito_hera.api.resource import RESERVED

VARIABLES = {"annotations": "object.metadata.?annotations.orValue({})"}
_ANNOTATIONS = "variables.annotations"


def _annotation_rules() -> list[Rule]:
    """One for each annotation, so that an edit of one does not judge another."""
    rules = []
    for known in KNOWN:
        if known.values:
            rules.append(_valued(known))
        if known.names:
            rules.append(_naming(known))
        if known.effect == "refused":
            rules.append(_refused(known))
        if known.effect == "no effect":
            rules.append(_about(known, "effect of", f"has no effect: {known.why}", severity="warning"))
        if known.key in annotations.EXACT:
            rules.append(_misspelled(known, annotations.EXACT[known.key]))
    return rules


_PLAIN = "v.trim().lowerAscii()"
"""CEL for `annotations.plain`."""


def _valued(known: Annotation) -> Rule:
    return _about(
        known,
        "value of",
        f"is not one of {', '.join(known.values)}",
        cel=f"!({_PLAIN} in {_list(known.values)})",
        offends=lambda value: annotations.plain(value) not in known.values,
    )


_OBJECT = "[a-z0-9](?:[-a-z0-9.]*[a-z0-9])?"


def _naming(known: Annotation) -> Rule:
    return _about(
        known,
        "name in",
        f"is no name of a {known.names}: write one of this namespace, or take the annotation out",
        cel=f"!({matching(_OBJECT, _PLAIN)} && v.size() <= 253)",
        offends=lambda value: not matches(_OBJECT, annotations.plain(value)) or len(value) > 253,
    )


def _refused(known: Annotation) -> Rule:
    # a value that is none of the allowed ones is told by the rule about values
    wanted = tuple(value for value in known.values if value not in known.harmless)
    listed = wanted or known.harmless
    asked = f"{_PLAIN} in {_list(listed)}"
    return _about(
        known,
        "meaning of",
        f"is refused: {known.why}",
        cel=asked if wanted else f"!({asked})",
        offends=lambda value: (annotations.plain(value) in listed) == bool(wanted),
    )


def _misspelled(known: Annotation, exact: str) -> Rule:
    meant = annotations.plain(exact)
    return _about(
        known,
        "spelling of",
        f'has no effect, as with KAITO: write "{exact}"',
        cel=f"{_PLAIN} == '{meant}' && v != '{exact}'",
        offends=lambda value: annotations.plain(value) == meant and value != exact,
        severity="warning",
    )


def _about(
    known: Annotation,
    what: str,
    message: str,
    *,
    cel: str = "true",
    offends: Callable[[str], bool] = lambda _: True,
    severity: Severity = "error",
) -> Rule:
    """A rule about the value of an annotation where there is one, in CEL called `v`."""
    key, path = known.key, f"metadata.annotations[{known.key}]"
    there = f"[{_ANNOTATIONS}['{key}']].filter(v, {cel})"
    escaped = message.replace("'", "\\'")

    def found(case: Case) -> list[str]:
        value = case.workspace.metadata.annotations.get(key)
        return [] if value is None or not offends(value) else [f"{path}: {quoted(value)} {message}"]

    return Rule(
        f"V8 {what} {key}",
        (path,),
        f"{there}.map(v, '{path}: ' + {quote('v')} + ' {escaped}')",
        found,
        when=f"'{key}' in {_ANNOTATIONS}",
        severity=severity,
    )


def _list(words: tuple[str, ...]) -> str:
    return f"[{', '.join(repr(word) for word in words)}]"


_OURS = "(?:[^/]*[.])?kaito[.]sh/.*"
_KEYS = tuple(known.key for known in KNOWN)
_MEANT = {annotations.letters(key): key for key in _KEYS}
_STRANGE = "is not known here and has no effect"
STRANGE = "V8 unknown annotation"


def _strange(case: Case) -> list[str]:
    given = case.workspace.metadata.annotations
    bad = [key for key in given if matches(_OURS, key) and key not in (*_KEYS, *annotations.OTHERS)]
    if not bad:
        return []
    key, more = min(bad), f"; {len(bad) - 1} more like it" if len(bad) > 1 else ""
    meant = _MEANT.get(annotations.letters(key), "")
    return [f"metadata.annotations[{key}]: {_STRANGE}{f': write {meant}' if meant else ''}{more}"]


_MEANT_CEL = "{" + ", ".join(f"'{text}': '{key}'" for text, key in _MEANT.items()) + "}"
_LETTERS = "lowerAscii().replace('-', '').replace('_', '')"
_STRANGE_CEL = (
    f"[{_ANNOTATIONS}.map(k, k).filter(k, {matching(_OURS, 'k')} && !(k in {_list((*_KEYS, *annotations.OTHERS))}))]"
    f".filter(bad, size(bad) > 0).map(bad, 'metadata.annotations[' + bad.min() + ']: {_STRANGE}'"
    f" + [{_MEANT_CEL}[?bad.min().{_LETTERS}].orValue('')].map(m, m == '' ? '' : ': write ' + m)[0]"
    " + (size(bad) > 1 ? '; ' + string(size(bad) - 1) + ' more like it' : ''))"
)


_PART = "[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_DOMAIN = "[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:[.][a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*"
_KEY = f"(?:{_DOMAIN}/)?{_PART}"
_VALUE = f"(?:{_PART})?"
_LABELS = "object.resource.?labelSelector.?matchLabels.orValue({})"
_EXPRESSIONS = "object.resource.?labelSelector.?matchExpressions.orValue([])"
_ALL_KEYS = f"({_LABELS}.map(k, k) + {_EXPRESSIONS}.map(e, e.key))"
_NO_LABEL = (
    "is no label that a node can carry: write PREFIX/NAME and a value of at most 63 letters, digits, dashes, dots"
    " and underscores"
)
_ONLY_RESERVED = (
    "and others like it are written by controllers, to say whose a node is, and there is no other label:"
    " give one of your own, for example apps: phi-3"
)


def _unlabelled(case: Case) -> list[str]:
    selector = case.workspace.resource.label_selector
    pairs = [*selector.match_labels.items(), *((e.key, e.values[0]) for e in selector.match_expressions)]
    bad = [key for key, value in pairs if not (matches(_KEY, key) and matches(_VALUE, value))]
    return [f"resource.labelSelector: {quoted(min(bad))} {_NO_LABEL}"] if bad else []


def _reserved(case: Case) -> list[str]:
    selector = case.workspace.resource.label_selector
    keys = [*selector.match_labels, *(e.key for e in selector.match_expressions)]
    only = keys and all(key in RESERVED for key in keys)
    return [f"resource.labelSelector: {quoted(min(keys))} {_ONLY_RESERVED}"] if only else []


_BAD_LABELS = (
    f"({_LABELS}.map(k, k).filter(k, !({matching(_KEY, 'k')} && {matching(_VALUE, f'{_LABELS}[k]')}))"
    f" + {_EXPRESSIONS}.filter(e, !({matching(_KEY, 'e.key')} && {matching(_VALUE, 'e.values[0]')})).map(e, e.key))"
)

_TEMPLATE = "object.?inference.?template.orValue({})"
POD = f"[dyn({_TEMPLATE})].map(t, type(t.?spec.orValue(0)) == map ? t.spec : {{}})[0]"
_NO_CONTAINER = (
    "inference.template.spec.containers: there is none: a pod of your own needs at least one, which serves on port 5000"
)
_FOLDER = "is a hostPath: a folder of the node is never mounted; take another kind of volume"


def pod(case: Case) -> dict[str, Any] | None:
    """The spec of the user's own pod, empty where it is not written as one."""
    template = case.workspace.inference.template if case.workspace.inference else None
    if template is None:
        return None
    spec = template.get("spec")
    return spec if isinstance(spec, dict) else {}


def _containers(case: Case) -> list[str]:
    spec = pod(case)
    if spec is None:
        return []
    listed = spec.get("containers")
    right = isinstance(listed, list) and listed and all(isinstance(one, dict) for one in listed)
    return [] if right else [_NO_CONTAINER]


def _host_paths(case: Case) -> list[str]:
    volumes = (pod(case) or {}).get("volumes")
    listed = volumes if isinstance(volumes, list) else []
    bad = [one for one in listed if isinstance(one, dict) and one.get("hostPath") is not None]
    return [f"inference.template.spec.volumes[{listed.index(one)}]: {_FOLDER}" for one in bad[:1]]


_THERE = "has(object.inference) && has(object.inference.template)"
_CONTAINERS = (
    f"{_THERE} && !{POD.removesuffix('[0]')}.all(p, type(p.?containers.orValue(0)) == list"
    " && size(p.containers) > 0 && p.containers.all(c, type(c) == map))"
)
_VOLUMES = f"{POD.removesuffix('[0]')}.map(p, type(p.?volumes.orValue(0)) == list ? p.volumes : [])[0]"

RULES = (
    *_annotation_rules(),
    Rule(STRANGE, ("metadata.annotations",), _STRANGE_CEL, _strange, severity="warning"),
    Rule(
        "V9 labels",
        ("resource.labelSelector",),
        f"[{_BAD_LABELS}].filter(b, size(b) > 0).map(b, [b.min()].map(k, 'resource.labelSelector: ' + {quote('k')}"
        f" + ' {_NO_LABEL}')[0])",
        _unlabelled,
    ),
    Rule(
        "V10 labels of controllers",
        ("resource.labelSelector",),
        f"size({_ALL_KEYS}) > 0 && {_ALL_KEYS}.all(k, k in {_list(RESERVED)})"
        f" ? [{_ALL_KEYS}.min()].map(k, 'resource.labelSelector: ' + {quote('k')} + ' {_ONLY_RESERVED}') : []",
        _reserved,
    ),
    Rule(
        "template without containers", ("inference.template",), f"{_CONTAINERS} ? ['{_NO_CONTAINER}'] : []", _containers
    ),
    Rule(
        "template with a hostPath",
        ("inference.template",),
        f"[{_VOLUMES}].map(vs, vs.filter(v, type(v) == map && 'hostPath' in v && v.hostPath != null)"
        f".map(v, 'inference.template.spec.volumes[' + string(vs.indexOf(v)) + ']: {_FOLDER}'))"
        ".filter(m, size(m) > 0).map(m, m[0])",
        _host_paths,
    ),
)
