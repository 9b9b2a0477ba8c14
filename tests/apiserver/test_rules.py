"""KAITO's rules V1 to V40, its rules on updates and its oddities, on the real API server. argo/RULES.md maps them."""

import copy
from pathlib import Path

import pytest
import yaml

from tests import making
from tests.apiserver import asking

CASES = yaml.safe_load((Path(__file__).parent / "rules.yaml").read_text())
INFERENCE = making.inference()
TUNING = making.tuning()
ADAPTERS = [{"source": {"name": "mine", "image": "a.io/mine:1"}, "strength": "0.5"}]
TEMPLATE = {"spec": {"containers": [{"name": "own", "image": "a.io/own:1"}]}}
BASES = {
    "inference": INFERENCE,
    "tuning": TUNING,
    "both": {**TUNING, "inference": INFERENCE["inference"]},
    "adapter": {**INFERENCE, "inference": {**INFERENCE["inference"], "adapters": ADAPTERS}},
    "template": {**INFERENCE, "inference": {"template": TEMPLATE}},
    "brought": {**INFERENCE, "resource": {"labelSelector": INFERENCE["resource"]["labelSelector"]}},
}


def patched(body, patch):
    """A JSON merge patch."""
    made = dict(body)
    for key, value in patch.items():
        if value is None:
            made.pop(key, None)
        elif isinstance(value, dict) and isinstance(made.get(key), dict):
            made[key] = patched(made[key], value)
        else:
            made[key] = copy.deepcopy(value)
    return made


def assert_says(said, words):
    missing = [word for word in words if word.lower() not in said.lower()]
    assert not missing, f"{missing} are missing in: {said}"


@pytest.mark.parametrize("version", ["v1alpha1", "v1beta1"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["case"])
def test_rule(cluster, namespace, case, version):
    body = {**BASES[case["from"]], "apiVersion": f"kaito.sh/{version}", "metadata": {"name": "w"}}
    body = patched(body, case.get("with", {}))
    change = case.get("then")
    said = asking.create(cluster, body, namespace, keep=bool(change))
    if change:
        assert said.taken, said.message
        said = asking.edit(cluster, body, namespace, change)
    if words := case.get("refused"):
        assert said.refused, said
        assert_says(said.message, words)
    else:
        assert said.taken, said.message
        assert_says("\n".join(said.warnings), case.get("warned", []))
