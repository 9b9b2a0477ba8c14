"""Annotations, labels and the user's own pod: what the schema cannot say of them."""

from typing import Any

from kaito_hera.admission.rule import Case, Rule, matches, matching, quote, quoted
from kaito_hera.api import annotations
from kaito_hera.api.annotations import KNOWN, Annotation
from kaito_hera.api.resource import RESERVED

VARIABLES = {"annotations": "object.metadata.?annotations.orValue({})"}
_ANNOTATIONS = "variables.annotations"


def _annotation_rules() -> list[Rule]:
    """One for each annotation, so that an edit of one does not judge another."""
    rules = []
    for known in KNOWN:
        path = f"metadata.annotations[{known.key}]"
        if known.values:
            rules.append(_valued(known, path))
        if known.names:
            rules.append(_naming(known, path))
        if known.effect == "refused":
            rules.append(_refused(known, path))
        if known.effect == "no effect":
            rules.append(_idle(known, path))
        if known.key in annotations.EXACT:
            rules.append(_misspelled(known, path, annotations.EXACT[known.key]))
    return rules


def _there(key: str) -> str:
    return f"'{key}' in {_ANNOTATIONS}"


def _list(words: tuple[str, ...]) -> str:
    return f"[{', '.join(repr(word) for word in words)}]"


def _one(key: str, condition: str, message: str) -> str:
    """CEL: a message about the value `v` of an annotation that is there."""
    message = message.replace("'", "\\'")
    bad = f"[{_ANNOTATIONS}['{key}']].filter(v, {condition})"
    return f"{bad}.map(v, 'metadata.annotations[{key}]: ' + {quote('v')} + ' {message}')"


def _of(case: Case, key: str) -> list[str]:
    value = case.workspace.metadata.annotations.get(key)
    return [] if value is None else [value]


def _valued(known: Annotation, path: str) -> Rule:
    message = f"is not one of {', '.join(known.values)}"
    return Rule(
        f"V8 value of {known.key}",
        (path,),
        _one(known.key, f"!(v.trim().lowerAscii() in {_list(known.values)})", message),
        lambda case: [
            f"{path}: {quoted(value)} {message}"
            for value in _of(case, known.key)
            if annotations.plain(value) not in known.values
        ],
        when=_there(known.key),
    )


_OBJECT = "[a-z0-9](?:[-a-z0-9.]*[a-z0-9])?"


def _naming(known: Annotation, path: str) -> Rule:
    message = f"is no name of a {known.names}: write one of this namespace, or take the annotation out"
    return Rule(
        f"V8 name in {known.key}",
        (path,),
        _one(known.key, f"!({matching(_OBJECT, 'v.trim().lowerAscii()')} && v.size() <= 253)", message),
        lambda case: [
            f"{path}: {quoted(value)} {message}"
            for value in _of(case, known.key)
            if not matches(_OBJECT, annotations.plain(value)) or len(value) > 253
        ],
        when=_there(known.key),
    )


def _refused(known: Annotation, path: str) -> Rule:
    # a value that is none of the allowed ones is told by the rule about values
    asks = (*known.harmless, *known.values)
    message = f"is refused: {known.why}"
    wanted = [value for value in known.values if value not in known.harmless]
    condition = (
        f"v.trim().lowerAscii() in {_list(tuple(wanted))}" if wanted else f"!(v.trim().lowerAscii() in {_list(asks)})"
    )

    def found(case: Case) -> list[str]:
        values = _of(case, known.key)
        bad = [v for v in values if (annotations.plain(v) in wanted if wanted else annotations.plain(v) not in asks)]
        return [f"{path}: {quoted(value)} {message}" for value in bad]

    name, when = f"V8 meaning of {known.key}", _there(known.key)
    return Rule(name, (path,), _one(known.key, condition, message), found, when=when)


def _idle(known: Annotation, path: str) -> Rule:
    message = f"has no effect: {known.why}"
    return Rule(
        f"V8 effect of {known.key}",
        (path,),
        _one(known.key, "true", message),
        lambda case: [f"{path}: {quoted(value)} {message}" for value in _of(case, known.key)],
        when=_there(known.key),
        severity="warning",
    )


def _misspelled(known: Annotation, path: str, exact: str) -> Rule:
    meant, message = annotations.plain(exact), f'has no effect, as with KAITO: write "{exact}"'
    return Rule(
        f"V8 spelling of {known.key}",
        (path,),
        _one(known.key, f"v.trim().lowerAscii() == '{meant}' && v != '{exact}'", message),
        lambda case: [
            f"{path}: {quoted(value)} {message}"
            for value in _of(case, known.key)
            if annotations.plain(value) == meant and value != exact
        ],
        when=_there(known.key),
        severity="warning",
    )


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
