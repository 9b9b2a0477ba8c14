"""Sizes and memory, judged without a cluster: every finding at once, with field, value and remedy."""

import dataclasses
import datetime

import pytest

import presets
from kaito_hera import errors, findings, loads, nodes, offers, sizing
from kaito_hera.settings import Settings
from presets import memory
from presets.kernels import Kernels
from tests import making

TODAY = datetime.date(2026, 11, 21)
AKS = Settings(node_provider="aks")
SMALL = loads.Batch(rows=2, length=2048, rank=8)


def workspace(body=None, annotations=None, **resource):
    made = making.tuning(annotations=annotations or {}) if body == "tuning" else making.inference()
    made["metadata"]["annotations"] = annotations or {}
    made["resource"] = {"labelSelector": {}, **resource}
    return made


def judged(made, settings=AKS, on=TODAY):
    return sizing.size_findings(making.parsed(made), settings, on)


def needed(made, preset="phi-3-mini-4k-instruct", batch=SMALL):
    return loads.demands(making.parsed(made), presets.preset(preset), batch)


def test_candidates_are_tried_size_by_size_each_with_every_capacity():
    made = workspace(instanceTypes=["Standard_NC4as_T4_v3", "standard_nc24ads_a100_v4"], capacity=["spot", "on-demand"])
    assert [candidate.name for candidate in sizing.candidates(making.parsed(made))] == [
        "Standard_NC4as_T4_v3/spot",
        "Standard_NC4as_T4_v3/on-demand",
        "Standard_NC24ads_A100_v4/spot",
        "Standard_NC24ads_A100_v4/on-demand",
    ]


def test_a_provider_is_asked_for_the_same_kinds_of_node_under_the_same_names():
    sizes = ["Standard_NC4as_T4_v3", "standard_nc24ads_a100_v4", "standard_nc4as_t4_v3"]
    for resource in ({"instanceTypes": sizes}, {"instanceTypes": sizes, "capacity": ["spot", "on-demand"]}):
        parsed = making.parsed(workspace(**resource))
        for settings in (AKS, Settings()):
            kinds = sizing.candidates(parsed, sizing.usual(settings))
            assert [kind.name for kind in kinds] == [
                want.candidate for want in nodes.candidates(parsed, sizing.usual(settings))
            ]
            assert len({kind.size.name for kind in kinds}) == 2


def test_brought_nodes_without_a_size_have_no_candidate_and_nothing_against_them():
    made = workspace()
    assert sizing.candidates(making.parsed(made)) == ()
    assert judged(made, Settings()) == []
    assert sizing.memory_findings(making.parsed(made), AKS, needed(made)) == []


def test_every_size_that_is_wrong_is_named_not_the_first():
    made = workspace(instanceTypes=["Standard_Nothing", "Standard_NC6s_v3", "Standard_NC24ads_A100_v4"])
    found = judged(made)
    assert [(finding.reason, finding.field, finding.fatal) for finding in found] == [
        ("UnknownInstanceType", "resource.instanceTypes[0]", True),
        ("UnsupportedGPU", "resource.instanceTypes[1]", True),
        ("UnsupportedGPU", "resource.instanceTypes[1]", False),
    ]
    assert "capability 7.0; the images need CUDA capability 7.5" in found[1].problem
    assert "retired on 2025-09-30" in found[2].problem
    assert found[2].remedy.startswith("take Standard_NC4as_T4_v3 (0.53 USD/h) or ")


def test_images_that_are_built_for_older_gpus_take_them_and_are_advised_for_them():
    older = AKS.model_copy(update={"kernels": Kernels(capabilities=("7.0", "7.5"), minimum_driver="525.60.13")})
    made = workspace(instanceTypes=["Standard_NC6s_v3", "Standard_NC24ads_A100_v4"])
    found = judged(made, older)
    assert [(f.field, f.fatal) for f in found] == [
        ("resource.instanceTypes[0]", False),
        ("resource.instanceTypes[1]", True),
    ]
    assert "retired" in found[0].problem
    assert found[1].problem.endswith("capability 8.0; the images have kernels for CUDA capabilities 7.0, 7.5 alone")
    advised = presets.size(found[1].remedy.split()[1])
    assert older.kernels.run_on(advised.compute)


@pytest.mark.parametrize(
    ("setting", "fatal"),
    [
        ({}, [True, False]),
        ({"gpu_capability_check": "warn"}, [False, False]),
        ({"gpu_capability_check": "warn", "retired_sizes": "refuse"}, [False, True]),
    ],
)
def test_the_platform_team_decides_what_an_old_size_is_worth(setting, fatal):
    found = judged(workspace(instanceType="Standard_NC12s_v3"), AKS.model_copy(update=setting))
    assert [finding.fatal for finding in found] == fatal


def test_a_size_that_will_be_retired_is_a_warning_until_that_day():
    size = presets.size("Standard_NC6s_v3")
    made = workspace(instanceType=size.name)
    before, after = (judged(made, on=size.retired_on + datetime.timedelta(days=d))[-1] for d in (-1, 0))
    assert "will be retired" in before.problem
    assert "was retired" in after.problem
    assert not before.fatal
    assert not after.fatal


def test_an_applied_workspace_learns_that_its_size_is_fixed_and_a_file_does_not():
    made = workspace(instanceType="Standard_NC6s_v3")
    assert "(delete the Workspace and apply it anew)" in judged(made)[0].remedy
    del made["metadata"]["uid"]
    assert "apply it anew" not in judged(made)[0].remedy


def test_every_retired_size_names_what_to_take_instead():
    for size in presets.sizes().values():
        for other in size.instead:
            assert sizing.unusable(presets.size(other)) == ""


def test_too_little_memory_is_said_of_each_size_and_each_use_with_one_that_holds_all():
    made = workspace("tuning", instanceTypes=["Standard_NC4as_T4_v3", "Standard_NC24ads_A100_v4"])
    made["tuning"]["preset"]["name"] = "phi-4"
    made["tuning"]["method"] = "lora"
    demands = needed(made, "phi-4", loads.Batch(rows=4))
    found = sizing.memory_findings(making.parsed(made), AKS, demands)
    assert [(f.field, f.reason, f.fatal) for f in found] == [
        ("resource.instanceTypes[0]", "InsufficientGPUMemory", True),
        ("resource.instanceTypes[0]", "InsufficientGPUMemory", True),
    ]
    assert "to tune phi-4 (lora, rank 8, 1 row of 2,048 tokens) needs" in found[0].problem
    assert "to serve phi-4 (cache for 2,048 tokens) needs" in found[1].problem
    assert found[0].remedy.endswith("; or set tuning.method to qlora")
    taken = presets.size(found[1].remedy.split()[1])
    assert all(memory.fits(demand.need.gib, taken) for demand in demands)


def test_what_a_size_names_in_its_place_is_advised_only_if_it_holds_the_model():
    made = workspace(instanceType="Standard_NC6s_v3")
    assert "Standard_NC4as_T4_v3" in judged(made)[0].remedy
    needs = (loads.serve(presets.preset("phi-4")),)
    advised = sizing.size_findings(making.parsed(made), AKS, TODAY, needs)[0].remedy
    assert "Standard_NC24ads_A100_v4" in advised
    assert "Standard_NC4as_T4_v3" not in advised


def test_prices_are_those_of_the_region():
    made = workspace(instanceType="Standard_NC6s_v3")
    for region, usd in ((None, "3.67"), ("westeurope", "4.78"), ("nowhere", "3.67")):
        needs = (loads.serve(presets.preset("phi-4")),)
        assert f"Standard_NC24ads_A100_v4 ({usd} USD/h)" in (
            sizing.size_findings(making.parsed(made), AKS, TODAY, needs, region)[0].remedy
        )
        assert "(" in sizing.memory_findings(making.parsed(made), AKS, needs, region)[0].remedy


@pytest.mark.parametrize(
    ("name", "smaller"),
    [("deepseek-r1-0528", "deepseek-r1-distill-qwen-14b"), ("llama-2-70b-chat", "llama-2-13b-chat")],
)
def test_a_model_that_no_node_holds_has_no_size_to_take_but_smaller_kin(name, smaller):
    made = workspace(instanceType="Standard_NC24ads_A100_v4")
    made["inference"]["preset"] = {"name": name, "presetOptions": {"image": "a.io/x:1"}}
    endless = (loads.serve(presets.preset(name), loads.Server(context=20_000_000)),)
    [finding] = sizing.memory_findings(making.parsed(made), AKS, endless)
    assert "no size here holds it with all GPUs of a node, and it is not divided among nodes" in finding.remedy
    assert finding.remedy.endswith(f"take a smaller model, such as {smaller}")
    assert offers.holders(loads.serve(presets.preset(smaller)))


def test_sizes_that_hold_a_model_are_advised_one_for_each_kind_of_gpu():
    made = workspace(instanceType="Standard_NC4as_T4_v3")
    [finding] = sizing.memory_findings(making.parsed(made), AKS, needed(made, "phi-4"))
    advised = [presets.size(word) for word in finding.remedy.split() if word.startswith("Standard_")]
    assert len({size.gpu for size in advised}) == len(advised) == 3
    assert all(memory.fits(needed(made, "phi-4")[0].need.gib, size) for size in advised)


def remedies(made, preset, **batch):
    needs = needed(made, preset, loads.Batch(**batch))
    return [f.remedy for f in sizing.memory_findings(making.parsed(made), AKS, needs)]


def test_where_only_the_server_does_not_fit_to_serve_nothing_is_a_way_out():
    made = workspace("tuning", instanceType="Standard_NC6s_v3")
    made["tuning"]["preset"]["name"] = "falcon-7b"
    [remedy] = remedies(made, "falcon-7b")
    assert remedy.endswith("; or set tuning.serve to false: the adapter is pushed, nothing is served")
    made["tuning"]["serve"] = False
    assert remedies(made, "falcon-7b") == []


def test_what_a_config_could_ask_for_less_of_is_advised_only_if_it_helps():
    made = workspace("tuning", instanceType="Standard_NC4as_T4_v3")
    made["tuning"] |= {"method": "lora", "preset": {"name": "mistral-7b"}, "serve": False}
    [remedy] = remedies(made, "mistral-7b")
    assert remedy.endswith("; or set tuning.method to qlora")
    made["tuning"]["method"] = "qlora"
    [remedy] = remedies(made, "mistral-7b", length=32_768)
    assert remedy.endswith("(delete the Workspace and apply it anew); or lower max_length")


@pytest.mark.parametrize(("rows", "taken", "gib"), [(16, 4, "10.2"), (8, 4, "10.2"), (7, 3, "9.6")])
def test_rows_that_do_not_fit_together_are_divided_and_that_is_said(rows, taken, gib):
    made = workspace("tuning", instanceType="Standard_NV18ads_A10_v5")
    made["tuning"] |= {"preset": {"name": "mistral-7b"}, "serve": False}
    needs = needed(made, "mistral-7b", loads.Batch(rows=rows))
    [finding] = sizing.memory_findings(making.parsed(made), AKS, needs)
    assert (finding.fatal, finding.remedy) == (False, "")
    assert f"(qlora, rank 8, {rows} rows of 2,048 tokens) needs" in finding.problem
    assert f"at once (qlora, rank 8, {taken} rows of 2,048 tokens: {gib} GiB), and what" in finding.problem
    assert offers.able(needs)[0].name != "Standard_NV18ads_A10_v5", "what holds them all is advised"


def test_activations_that_are_to_be_kept_are_computed_twice_where_they_do_not_fit():
    made = workspace("tuning", instanceType="Standard_NV18ads_A10_v5")
    made["tuning"] |= {"preset": {"name": "mistral-7b"}, "serve": False}
    needs = needed(made, "mistral-7b", loads.Batch(recompute=False))
    [finding] = sizing.memory_findings(making.parsed(made), AKS, needs)
    assert not finding.fatal
    assert "2 rows of 2,048 tokens, activations kept) needs" in finding.problem
    assert "1 row of 2,048 tokens: 6.9 GiB)" in finding.problem


def test_where_no_size_holds_all_rows_at_once_those_that_hold_fewer_are_advised():
    needs = (loads.tune(presets.preset("phi-4"), "qlora", loads.Batch(rows=512)),)
    [demand] = needs
    able = offers.able(needs)
    assert able
    assert all(demand.way(size.gib_per_gpu * size.usable, size.gpus) for size in able)


def test_several_gpus_of_a_node_each_hold_the_whole_model_and_what_they_tell_each_other():
    sizes = ["Standard_NC24ads_A100_v4", "Standard_NC48ads_A100_v4"]
    made = workspace("tuning", instanceTypes=sizes)
    one, two = sizing.candidates(making.parsed(made))
    assert (one.gpus, two.gpus) == (1, 2)
    demand = loads.tune(presets.preset("phi-4"), "lora", SMALL)
    assert demand.gib_of(2) > demand.gib_of(1) + 0.5
    tight = dataclasses.replace(demand, several=80.0)
    assert [each.way(tight) for each in (one, two)] == [0, None]
    [finding] = sizing.memory_findings(making.parsed(made), AKS, (tight,))
    assert finding.field == "resource.instanceTypes[1]"
    assert {presets.size(word).gpus for word in finding.remedy.split() if word.startswith("Standard_")} == {1}
    partition = {"mode": "accelerator", "count": 3}
    [four] = sizing.candidates(making.parsed(workspace(instanceType="Standard_NC96ads_A100_v4", partition=partition)))
    assert four.gpus == 3


def test_a_context_that_is_too_long_may_be_lowered():
    made = workspace(instanceType="Standard_NC4as_T4_v3")
    needs = loads.demands(making.parsed(made), presets.preset("phi-3-mini-128k-instruct"), None, loads.Server(100_000))
    [finding] = sizing.memory_findings(making.parsed(made), AKS, needs)
    assert "cache for 100,000 tokens" in finding.problem
    assert finding.remedy.endswith("; or lower vllm.max-model-len")


def numbers(made, settings=AKS):
    asked = loads.Server(bfloat16="here"), loads.Batch(bfloat16="there")
    needs = loads.demands(making.parsed(made), presets.preset("phi-3-mini-4k-instruct"), asked[1], asked[0])
    return sizing.number_findings(making.parsed(made), settings, needs)


def test_a_gpu_without_bfloat16_is_refused_to_a_server_and_told_to_a_tuning_run():
    found = numbers(workspace("tuning", instanceTypes=["Standard_NC4as_T4_v3", "Standard_NC24ads_A100_v4"]))
    assert [(f.reason, f.field, f.fatal) for f in found] == [
        ("UnsupportedGPU", "resource.instanceTypes[0]", False),
        ("UnsupportedGPU", "resource.instanceTypes[0]", True),
    ]
    has = "Standard_NC4as_T4_v3 has NVIDIA T4 16GB, capability 7.5, which does not compute bfloat16"
    assert [f.problem for f in found] == [f"{has}; there, and training takes float16 in its place", f"{has}; here"]
    assert all(f.remedy.startswith("write auto or float16 there; or take Standard_") for f in found)
    assert presets.size(found[1].remedy.split("take ")[1].split()[0]).compute >= (8, 0)


def test_what_is_advised_computes_in_bfloat16_where_a_server_is_to():
    made = workspace(instanceType="Standard_NC6s_v3")
    asked = (loads.serve(presets.preset("phi-3-mini-4k-instruct"), loads.Server(bfloat16="here")),)
    advised = sizing.size_findings(making.parsed(made), AKS, TODAY, asked)[0].remedy
    assert "Standard_NC4as_T4_v3" in judged(made)[0].remedy
    assert "Standard_NC4as_T4_v3" not in advised
    assert "Standard_NV36ads_A10_v5" in advised


def test_where_old_gpus_are_only_warned_of_a_server_may_run_on_the_cpu():
    lenient = AKS.model_copy(update={"gpu_capability_check": "warn"})
    for size, fatal in (("Standard_NC6s_v3", False), ("Standard_NC4as_T4_v3", True)):
        made = workspace(instanceType=size)
        assert [finding.fatal for finding in numbers(made, lenient)] == [fatal]
        assert [finding.fatal for finding in numbers(made)] == [True]


@pytest.mark.parametrize("value", ["", "true", "no"])
def test_the_bypass_annotation_makes_memory_a_warning_by_its_presence(value):
    made = workspace("tuning", {"kaito.sh/bypass-resource-checks": value}, instanceType="Standard_NC4as_T4_v3")
    parsed = making.parsed(made)
    found = sizing.memory_findings(parsed, AKS, needed(made, "phi-4", loads.Batch(length=16_384)))
    assert [finding.fatal for finding in found] == [False, False]
    assert sizing.bypassed(making.parsed(parsed.intent()))  # it reaches the step
    assert parsed.annotated


def test_a_slice_of_a_card_holds_what_the_slice_has():
    partition = {"mode": "mig", "profile": "1g.10gb"}
    made = workspace(instanceType="Standard_NC24ads_A100_v4", partition=partition)
    [candidate] = sizing.candidates(making.parsed(made))
    assert (candidate.gpu_gib, candidate.usable_gib) == (10, 9.5)
    assert sizing.memory_findings(making.parsed(made), AKS, needed(made)) == [], "fitting tells of slices"


def test_agent_pools_are_not_made_of_another_cloud_s_sizes():
    parsed = making.parsed(workspace(instanceType="p4d.24xlarge"))
    [finding] = sizing.size_findings(parsed, AKS, datetime.date(2026, 1, 1), needed(workspace()))
    assert finding.fatal
    assert "p4d.24xlarge is no size of Azure's" in finding.problem
    assert "Standard_" in finding.remedy
    brought = Settings(node_provider="byo")
    assert not any(f.fatal for f in sizing.size_findings(parsed, brought, datetime.date(2026, 1, 1)))


def test_what_holds_here_is_what_presets_say_holds():
    for size in presets.sizes().values():
        [candidate] = sizing.candidates(making.parsed(workspace(instanceType=size.name)))
        demand = loads.serve(presets.preset("phi-4"))
        alone = memory.fits(demand.need.gib, size)
        assert candidate.way(demand) == 0 if alone else (candidate.way(demand) is None or size.gpus > 1)


def test_the_first_fatal_finding_is_raised_and_the_others_told():
    small = findings.Finding(errors.UnsupportedGPUError, "a", "is old", "take b", fatal=False)
    fatal = findings.Finding(errors.InsufficientGPUMemoryError, "c", "is small")
    assert findings.settle([small]) == ("a: is old; take b",)
    with pytest.raises(errors.InsufficientGPUMemoryError, match=r"^c: is small$"):
        findings.settle([small, fatal])


def test_a_pod_of_the_user_s_own_needs_none_of_what_our_images_need():
    made = workspace(instanceType="Standard_NC6s_v3")
    made["inference"] = {"template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}}
    assert [(finding.field, finding.fatal) for finding in judged(made)] == [("resource.instanceType", False)]
    assert "retired" in judged(made)[0].problem
