"""Whatever stands in a manifest, a plan is told of it: in few words, and the exit code follows from its errors."""

import copy
import datetime
import random
from pathlib import Path

import pytest

from kaito_hera.paper import Paper
from kaito_hera.settings import Azure, Settings
from workflows.outlook import Outlooks, documents, judging, text

TODAY = datetime.date(2026, 11, 21)
AZURE = Azure(tenant_id="t", client_id="c", subscription_id="s", resource_group="g", cluster_name="a", location="l")
SETTINGS = (Settings(), Settings(node_provider="aks", azure=AZURE, retired_sizes="refuse"))
PLANS = sorted((Path(__file__).parent / "plans").glob("*.yaml"))
MANIFESTS = [documents.read(file.read_text(), file.name) for file in PLANS]
ODD = (
    *(
        None,
        "",
        0,
        -1,
        101,
        True,
        1.5,
        [],
        {},
        [None],
        "x" * 100_000,
        "\U0001d518\u0308",
        "\u202ename\x1b[2J",
        "{{workflow}}",
    ),
    *("org/model", "a--b/c", "phi-4", "deepseek-r1-0528", "Standard_NC24ads_A100_v4", ["Standard_NC4as_T4_v3"] * 11),
    *("{{workflow}}", {"name": "phi-4"}, {"a": None}, ["spot", "spot"], {"mode": "mig", "profile": "1g.10gb"}),
)
KEYS = (
    *("instanceType", "instanceTypes", "capacity", "partition", "count", "preset", "name", "template", "adapters"),
    *("config", "serve", "method", "input", "output", "image", "urls", "presetOptions", "labelSelector", "annotations"),
    *("apiVersion", "metadata", "resource", "inference", "tuning", "unheardOf"),
)


def places(value, path=()):
    """Every place in an object, as a path to it."""
    yield from [path] if path else []
    if isinstance(value, dict | list):
        for key, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(each, (*path, key))


def spoiled(obj, chance):
    """The object with one to three things changed, taken out or put in."""
    obj = copy.deepcopy(obj)
    for _ in range(chance.randint(1, 3)):
        *parents, last = chance.choice(list(places(obj)))
        parent = obj
        for key in parents:
            parent = parent[key]
        odd = copy.deepcopy(chance.choice(ODD))
        match chance.choice(["change", "change", "take out", "put in"]):
            case "change":
                parent[last] = odd
            case "take out" if len(obj) > 1:
                del parent[last]
            case _ if isinstance(parent, dict):
                parent[chance.choice(KEYS)] = odd
    return obj


@pytest.mark.parametrize("seed", range(4))
def test_a_plan_is_told_of_whatever_is_written(seed):
    chance = random.Random(seed)
    worked = refused = 0
    for _ in range(120):
        beside = chance.choice(MANIFESTS)
        obj = spoiled(chance.choice(beside.workspaces), chance)
        told = judging.judge(obj, beside, chance.choice(SETTINGS), on=TODAY)
        assert told.works == (not told.errors)
        assert Outlooks.model_validate_json(Outlooks(plans=(told,)).model_dump_json(by_alias=True)).plans == (told,)
        shown = text.render(told, Paper(chance.choice([None, 60])))
        assert len(shown) < 40_000
        assert shown.replace("\n", "").isprintable()
        worked, refused = worked + told.works, refused + (not told.works)
    assert worked
    assert refused
