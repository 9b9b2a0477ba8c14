"""Workspaces for the agreement of CEL and Python: half of them sound, the others mutated near the rules' edges."""

import copy
import random

from hypothesis import strategies as st

from tests import making
from tests.apiserver import edges

LONG = "x" * 100_000
_ODD = [None, "", 0, -1, 1.0, 1.5, True, [], {}, "1", [None], {"a": 1}, LONG, "\u0430bc", "a\u0000b", [[]], 2**63]


def _set(body, path, value):
    """Set a field, making the objects above it; `edges.GONE` takes it away; annotations are added to what is there."""
    *above, last = path
    target = body
    for part in above:
        if isinstance(target, dict):
            target = target.setdefault(part, {})
        elif isinstance(target, list) and isinstance(part, int) and part < len(target):
            target = target[part]
        else:
            return
    if last == "annotations":
        target.setdefault(last, {}).update(value)
    elif isinstance(target, dict) and value is edges.GONE:
        target.pop(last, None)
    elif isinstance(target, dict) or (isinstance(target, list) and isinstance(last, int) and last < len(target)):
        target[last] = copy.deepcopy(value)


@st.composite
def _sound(draw, kind):
    body = copy.deepcopy(making.tuning() if kind == "tuning" else making.inference())
    body["apiVersion"] = f"kaito.sh/{draw(st.sampled_from(['v1alpha1', 'v1beta1']))}"
    body["metadata"] = {"name": "w", "annotations": {}}
    labels = draw(st.sampled_from(edges.LABELS))
    body["resource"] = {"instanceType": draw(st.sampled_from(edges.SIZES)), "labelSelector": {"matchLabels": labels}}
    if kind == "template":
        volumes = draw(st.sampled_from([[], [{"name": "a", "emptyDir": {}}]]))
        body["inference"] = {"template": edges.pod(volumes=volumes)}
    elif kind == "inference":
        body["inference"]["preset"]["name"] = draw(st.sampled_from(edges.PRESETS))
        body["inference"]["adapters"] = [edges.adapter(number) for number in range(draw(st.integers(0, 10)))]
    else:
        several = st.lists(st.sampled_from(edges.URLS), min_size=1, max_size=64)
        image, volume = draw(st.sampled_from(edges.IMAGES)), draw(st.sampled_from(edges.VOLUMES))
        given = [{"urls": draw(several)}, {"image": image}, {"volumeSource": volume}]
        body["tuning"]["input"] = draw(st.sampled_from(given))
        body["tuning"]["checkpoint"] = draw(st.sampled_from(edges.CHECKPOINTS))
        body["tuning"]["method"] = draw(st.sampled_from(["lora", "qlora", "QLoRA"]))
    return copy.deepcopy(body)


def _paths(value, above=()):
    """Every field below; lists by their first element."""
    found = []
    for key, inner in value.items() if isinstance(value, dict) else list(enumerate(value))[:1]:
        path = (*above, key)
        found.append(path)
        if isinstance(inner, (dict, list)):
            found += _paths(inner, path)
    return found


_KEPT = {("apiVersion",), ("kind",), ("metadata",), ("metadata", "annotations")}
_MORE = [
    ("resource", "bogus"),
    ("resource", "count"),
    ("resource", "capacity"),
    ("resource", "preferredNodes"),
    ("resource", "provisioningTimeoutSeconds"),
    ("resource", "labelSelector", "matchExpressions"),
    ("inference", "config"),
    ("inference", "bogus"),
    ("tuning", "serve"),
    ("tuning", "checkpoint"),
    ("tuning", "checkpoint", "intervalSeconds"),
    ("status", "state"),
]


def _chaos(draw, body):
    paths = [path for path in _paths(body) if path not in _KEPT]
    path, value = draw(st.sampled_from([*paths, *_MORE])), draw(st.sampled_from([*_ODD, edges.GONE]))
    # only kubectl minds a null of no known name, and only Python what is too large for a Workflow
    if not (path[-1] == "bogus" and value is None) and not ("template" in path and value is LONG):
        _set(body, path, value)
    if isinstance(body.get("inference"), dict) and draw(st.integers(0, 4)) == 0:
        number = draw(st.sampled_from([11, 500]))
        body["inference"]["adapters"] = [edges.adapter(each) for each in range(number)]


def _patch(body, entry, chance):
    """One edge: a field and values for it, or several of them that belong together."""
    for path, values in entry if isinstance(entry[0], tuple) else (entry,):
        if path:
            _set(body, path.split("."), chance.choice(values))
        else:
            body.pop("inference", None)
            body.pop("tuning", None)


def _annotate(body, chance):
    for name in chance.sample(sorted(edges.ANNOTATIONS), chance.randint(1, 4)):
        _patch(body, edges.ANNOTATIONS[name], chance)


def _edges(table, chance):
    """A kind of Workspace and edges for it; each edge is as likely as any other."""
    kind, name = chance.choice([(kind, name) for kind, names in table.items() for name in names])
    own = kind if kind != "any" else chance.choice(["inference", "tuning", "template"])
    return own, [table[kind][name], *(chance.sample([*table["any"].values(), *table[own].values()], 2))]


@st.composite
def workspaces(draw):
    """One Workspace as it would be sent."""
    sound = {kind: draw(_sound(kind)) for kind in ("inference", "tuning", "template")}
    # hypothesis likes the first and the same of all: which edge it is follows evenly from all that it chose
    chance = random.Random(f"{draw(st.integers())} {sound}")
    what = chance.choices(["sound", "policies", "rules", "chaos"], [38, 26, 29, 7])[0]
    if what in {"policies", "rules"}:
        kind, entries = _edges(edges.POLICY if what == "policies" else edges.RULES, chance)
    else:
        kind, entries = chance.choice([*sound]), []
    body = sound[kind]
    if what == "policies" and chance.random() < 0.5:
        _annotate(body, chance)
    for entry in entries[: chance.randint(1, 3) if what == "policies" else 1]:
        _patch(body, entry, chance)
    if what == "chaos":
        _chaos(draw, body)
    return body
