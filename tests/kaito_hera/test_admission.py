"""The admission policies without an API server: what is committed, and what Python says."""

import json
import subprocess
import sys

import pytest

import presets
from kaito_hera import admission, checks, errors
from kaito_hera.admission import sizes, tables
from kaito_hera.settings import Settings
from tests import making
from tests.apiserver.conftest import ROOT


@pytest.mark.parametrize(("file", "arguments"), [("policy.yaml", []), ("policy-kind.yaml", ["--kind"])])
def test_the_policies_are_those_that_the_rules_make(file, arguments):
    command = [sys.executable, "-m", "kaito_hera.admission", *arguments]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert printed == (ROOT / "argo" / file).read_text(), "make golden, and read the difference"


def test_it_needs_neither_kubernetes_nor_hera():
    code = "import sys, kaito_hera.admission.policy; print({'kubernetes', 'hera', 'torch'} & sys.modules.keys())"
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout == "set()\n"


def test_each_rule_has_a_name_of_its_own():
    names = [rule.name for rule in admission.RULES]
    assert len(set(names)) == len(names)


def test_the_tables_have_no_word_that_no_rule_reads():
    rows = tables.data()
    read = " ".join(rule.cel for rule in admission.RULES) + json.dumps(sizes.variables())
    words = next(row for key, row in rows.items() if key.startswith("preset.")).split()
    assert [f"variables.row[{at}]" in read for at in range(len(words))] == [True] * len(words)
    assert [len(row.split()) for key, row in rows.items() if key.startswith("size.")] == [1] * len(presets.sizes())


def test_a_problem_names_its_field_and_what_preflight_ends_with():
    workspace = making.parsed(making.edited(making.inference(), instanceType="Standard_NC7s_v9"))
    (problem,) = admission.problems(workspace, Settings())
    assert problem.message.startswith("resource.instanceType: ")
    assert problem.severity == "error"
    assert problem.error.__name__ == "UnknownInstanceTypeError"


def test_warnings_are_what_stops_nothing():
    workspace = making.parsed(making.edited(making.inference(), instanceType="Standard_NC6s_v3"))
    found = admission.problems(workspace, Settings())
    told = " ".join(problem.message for problem in found)
    assert [word in told for word in ("retired", "capability 7.0", "Standard_NC24ads_A100_v4")] == [True] * 3
    assert {problem.severity for problem in found} == {"warning"}
    (kernels,) = [problem.message for problem in found if "capability" in problem.message]
    assert "unless the setting kernels has it or gpuCapabilityCheck is warn; take Standard_NC4as_T4_v3" in kernels


@pytest.mark.parametrize(
    ("preset", "size", "annotated", "offered"),
    [
        ("falcon-40b", "Standard_NC24ads_A100_v4", {}, True),
        ("falcon-40b", "Standard_NC24ads_A100_v4", {"kaito.sh/bypass-resource-checks": ""}, False),
        ("llama-3.3-70b-instruct", "Standard_NC24ads_A100_v4", {}, False),
        ("falcon-40b", "Standard_NC4as_T4_v3", {}, False),
        ("ministral-3-14b-instruct", "Standard_NC4as_T4_v3", {}, False),
    ],
)
def test_who_may_know_better_is_told_how_to_say_so(preset, size, annotated, offered):
    made = making.edited(making.inference(annotations=annotated), instanceType=size)
    made["inference"]["preset"]["name"] = preset
    (said,) = [one for one in admission.problems(making.parsed(made), Settings()) if one.rule.name.startswith("V13")]
    assert ("annotate the Workspace with kaito.sh/bypass-resource-checks" in said.message) is offered
    assert said.message.partition("GiB; ")[2]


@pytest.mark.parametrize(
    ("size", "partition", "served"),
    [
        ("Standard_NC24ads_A100_v4", None, False),
        ("Standard_NC48ads_A100_v4", None, False),
        ("Standard_NC96ads_A100_v4", None, True),
        ("Standard_NC96ads_A100_v4", {"mode": "accelerator", "count": 2}, False),
        ("Standard_NC96ads_A100_v4", {"mode": "accelerator", "count": 3}, True),
    ],
)
def test_all_gpus_of_a_node_serve_what_one_does_not_hold(size, partition, served):
    made = making.inference()
    made["resource"] |= {"instanceType": size} | ({"partition": partition} if partition else {})
    made["inference"]["preset"] = {"name": "llama-3.3-70b-instruct", "presetOptions": {"modelAccessSecret": "hf"}}
    told = [one for one in admission.problems(making.parsed(made), Settings()) if one.rule.name.startswith("V13")]
    assert bool(told) is not served


POD = {"spec": {"containers": [{"name": "own", "image": "ACR_REPO_HERE.azurecr.io/IMAGE_NAME_HERE:0.0.1"}]}}
ADAPTERS = [{"source": {"name": "mine", "image": "ACR_REPO_HERE.azurecr.io/ADAPTER_HERE:1"}}]


@pytest.mark.parametrize(
    ("inference", "field"),
    [
        ({"template": POD}, "inference.template.spec.containers[0].image"),
        ({**making.inference()["inference"], "adapters": ADAPTERS}, "inference.adapters[0].source.image"),
    ],
)
def test_a_placeholder_ends_the_preflight_where_an_apply_warns(inference, field):
    workspace = making.parsed(making.edited(making.inference(), inference=inference))
    (problem,) = admission.problems(workspace, Settings())
    assert problem.severity == "warning"
    with pytest.raises(errors.InvalidWorkspaceError) as raised:
        checks.pass_facts(workspace, Settings())
    assert str(raised.value).startswith(f"{field}: ")
    assert "is a placeholder: replace it" in str(raised.value)
