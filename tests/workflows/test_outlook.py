"""What `plan` says is what the operator does and preflight says: the same steps, sizes and words."""

import datetime
import itertools

import pytest

from kaito_hera import admission, checks, errors, loads, models
from kaito_hera.intent import Parts
from kaito_hera.paper import Paper
from kaito_hera.settings import Azure, Settings
from tests import making
from tuning import training_config
from workflows import configs, needs
from workflows.outlook import documents, judging, slips, telling, text
from workflows.plan import plan

TODAY = datetime.date(2026, 11, 21)
AZURE = Azure(tenant_id="t", client_id="c", subscription_id="s", resource_group="g", cluster_name="a", location="l")
AKS = Settings(node_provider="aks", azure=AZURE)
BESIDE = documents.Documents((), {})
OF_A_VOLUME = {"preset": {"name": "phi-4"}, "adapters": [{"source": {"name": "a", "volume": {"emptyDir": {}}}}]}
UNQUOTED = {"preset": {"name": "phi-4"}, "adapters": [{"name": "a", "source": {"name": "a"}, "strength": 0.5}]}
KINDS = {"serve": making.inference, "tune": making.tuning, "tune only": making.tuning_only}
EITHER = (False, True)


def judged(made, settings=AKS, **more):
    return judging.judge(made, BESIDE, settings, on=TODAY, **more)


@pytest.mark.parametrize("scratch", ["", "zrs"])
@pytest.mark.parametrize("settings", [AKS, Settings()], ids=["aks", "byo"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_steps_are_those_of_the_workflow(settings, kind, scratch):
    workspace, settings = making.parsed(KINDS[kind]()), settings.model_copy(update={"tuning_scratch": scratch})
    every = [Parts(*choice) for choice in itertools.product(EITHER, EITHER if workspace.tuning else (False,), EITHER)]
    every += [Parts(push=True)] if scratch and workspace.tuning else []
    for parts in every:
        if not parts or (parts.serve and not workspace.serves):
            continue
        manifest = plan(workspace, settings, attempt=1, parts=parts, adapter=f"a/b@sha256:{'0' * 64}")
        entry = next(t for t in manifest["spec"]["templates"] if t["name"] == manifest["spec"]["entrypoint"])
        names = [step["name"] for parallel in entry["steps"] for step in parallel]
        assert [step.name for step in telling.steps(workspace, settings, parts)] == names, parts


def test_where_nothing_is_left_to_do_there_is_no_step():
    assert judged(making.inference(), parts=Parts()).steps == ()


REFUSED = {
    "too small": making.edited(making.inference(), instanceType="Standard_NC4as_T4_v3"),
    "no kernels": making.edited(making.tuning(), instanceType="Standard_NC6s_v3"),
    "no such size": making.edited(making.inference(), instanceType="Standard_NC24ads_A100"),
    "no size": making.edited(making.inference(), instanceType=None),
    "no such model": making.edited(making.inference(), inference={"preset": {"name": "phi-5"}}),
    "no tuning of it": making.tuning(),
    "given to some only": making.edited(making.inference(), inference={"preset": {"name": "llama-3.1-8b-instruct"}}),
}
REFUSED["no tuning of it"]["tuning"]["preset"]["name"] = "gemma-3-4b-instruct"
REFUSED["too small"]["inference"]["preset"]["name"] = "phi-4"


def preflight(workspace):
    """As its step does, but for what it asks the cluster."""
    checks.pass_facts(workspace, AKS)
    checks.pass_memory(workspace, AKS, loads.demands(workspace, models.find(workspace), loads.Batch()))


@pytest.mark.parametrize("case", REFUSED)
def test_preflight_ends_with_what_plan_says_first(case):
    workspace = making.parsed(REFUSED[case])
    said = judged(REFUSED[case]).errors[0]
    with pytest.raises(errors.KaitoError) as ended:
        preflight(workspace)
    assert ended.value.reason == said.reason
    assert str(ended.value) == f"{said.field}: {said.problem}" + (f"; {said.remedy}" if said.remedy else "")


def test_rows_that_do_not_fit_together_are_a_warning_and_what_is_taken_of_them_fits():
    made = making.edited(making.tuning_only(), instanceType="Standard_NC4as_T4_v3")
    made["tuning"]["preset"]["name"] = "deepseek-r1-distill-qwen-14b"
    told = judged(made)
    assert told.works
    [said] = [one.problem for one in told.warnings if "GiB per GPU" in one.problem]
    assert "2 rows of 2,048 tokens) needs 15.7 GiB; so less is computed at once" in said
    assert told.candidates[0].fits[0].fits
    assert 0.9 < told.candidates[0].fits[0].share < 1
    assert told.price


def test_tuning_needs_room_on_the_nodes_disk():
    def parts(made, settings=AKS, **more):
        return {part.name: part.gib for part in judged(made, settings, **more).disk}

    whole = parts(making.tuning())
    assert list(whole) == ["weights", "checkpoints and adapter"]
    assert whole["weights"] == round(models.find(making.parsed(making.tuning())).weights_gib, 3)
    without = making.tuning()
    without["tuning"]["checkpoint"] = {"destination": "None"}
    assert parts(without)["adapter"] < whole["checkpoints and adapter"] / 5
    on_a_volume = AKS.model_copy(update={"tuning_scratch": "fast"})
    assert list(parts(making.tuning(), on_a_volume)) == ["weights"]
    assert parts(making.tuning(), parts=Parts(serve=True)) == parts(making.inference()) == {}


def test_what_the_gpus_of_a_node_divide_is_said_for_each_of_them():
    made = making.edited(making.inference(), instanceType="Standard_NC96ads_A100_v4")
    made["inference"]["preset"]["name"] = "gpt-oss-120b"
    told = judged(made)
    assert told.works
    [fit] = told.candidates[0].fits
    assert fit.fits
    assert 0.5 < fit.share < 1 < told.memory[0].gib_with_margin / told.candidates[0].usable_gib
    shown = text.render(told, Paper())
    assert f"divided among the GPUs of Standard_NC96ads_A100_v4: {fit.share:.0%} of each" in shown
    assert "its layers go onto 4 GPUs, and requests are answered one at a time" in shown


def test_the_usual_batch_is_that_of_an_empty_config():
    assert needs.batch(training_config.parse("training_config: {}", "qlora")) == loads.Batch()


def test_every_rule_of_the_admission_policies_speaks():
    """But those about sizes, of which `sizing` knows more."""
    made = making.tuning(annotations={"kaito.sh/run-benchmark": "x", "kaito.sh/use-local-weights": "true"})
    made["resource"]["labelSelector"] = {"matchLabels": {"kaito.sh/workspace": "x"}}
    made["tuning"]["preset"]["name"] = "gpt-9"
    made["tuning"]["input"]["urls"] = ["https://localhost/x"]
    made["tuning"]["output"]["image"] = "UPPER/x:1"
    told = judged(made)
    texts = [f"{one.field}: {one.problem}" for one in (*told.errors, *told.warnings)]
    problems = admission.problems(making.parsed(made), AKS, TODAY)
    assert len(problems) == 5
    assert all(problem.message in texts for problem in problems)
    assert {problem.message for problem in problems if problem.severity == "error"} <= {
        f"{one.field}: {one.problem}" for one in told.errors
    }


@pytest.mark.parametrize(
    ("url", "settings", "parts", "refused"),
    [
        ("http://10.0.0.5/d.parquet", AKS, None, True),
        ("http://[fd00::5]/d.parquet", AKS, None, True),
        ("http://10.0.0.5/d.parquet", AKS, Parts(nodes=True, tune=False, serve=True), False),
        ("http://10.0.0.5/d.parquet", AKS.model_copy(update={"allowed_private_cidrs": ("10.0.0.0/8",)}), None, False),
        ("http://52.1.2.3/d.parquet", AKS, None, False),
    ],
)
def test_data_at_a_private_address_is_refused_where_it_is_written_so(url, settings, parts, refused):
    made = making.tuning()
    made["tuning"]["input"]["urls"] = ["https://example.com/a.parquet", url]
    told = judged(made, settings, parts=parts).errors
    assert [(one.field, "is a private address" in one.problem) for one in told] == [
        ("tuning.input.urls[1]", True)
    ] * refused
    assert ["allowedPrivateCIDRs" in one.remedy for one in told] == [True] * refused


def test_the_hubs_page_about_data_is_not_the_data():
    made = making.tuning()
    made["tuning"]["input"]["urls"] = ["https://huggingface.co/datasets/a/b/blob/main/c.parquet"]
    [error] = judged(made).errors
    assert (error.field, error.remedy) == ("tuning.input.urls[0]", "write /resolve/ in place of /blob/")


def test_new_nodes_need_to_know_whose():
    [error] = judged(making.inference(), Settings(node_provider="aks")).errors
    assert (error.reason, error.field) == ("ConfigInvalid", "setting azure")
    with pytest.raises(errors.ConfigInvalidError, match="setting azure: is missing, nodeProvider aks needs it"):
        checks.pass_facts(making.parsed(making.inference()), Settings(node_provider="aks"))


@pytest.mark.parametrize(
    ("metadata", "field", "remedy"),
    [
        ({"lables": {"a": "b"}}, "metadata.lables", "did you mean labels?"),
        ({"spec": 1}, "metadata.spec", "take it out; there are name, labels"),
        ({"labels": {"a": 1}}, "metadata.labels", "each label is text: quote it"),
    ],
)
def test_what_a_strict_apply_refuses_of_metadata_is_an_error(metadata, field, remedy):
    [error] = judged(making.inference(**metadata)).errors
    assert error.field == field
    assert error.remedy.startswith(remedy)


@pytest.mark.parametrize(
    ("key", "remedy"),
    [
        ("kaito.sh/runtim", "did you mean kaito.sh/runtime?"),
        ("kaito.sh/enable_LB", ""),
        ("kaito.sh/no-such-thing", ""),
        ("karpenter.kaito.sh/x", ""),
    ],
)
def test_an_annotation_that_nobody_knows_is_said(key, remedy):
    [warning] = judged(making.inference(annotations={key: "vllm"})).warnings
    assert (warning.field, warning.remedy) == (f"metadata.annotations[{key}]", remedy)
    assert warning.problem.endswith("write kaito.sh/enablelb") is ("LB" in key)


@pytest.mark.parametrize("key", ["kaito.sh/upgrade-start-time", "workspace.kaito.io/hash", "notkaito.sh/runtim"])
def test_of_annotations_that_others_write_nothing_is_said(key):
    assert judged(making.inference(annotations={key: "x"})).warnings == ()


def test_the_operators_template_is_the_config_of_a_workspace_without_one():
    text = "training_config: {TrainingArguments: {per_device_train_batch_size: 7}}"
    template = {("kaito-hera", "qlora-params-template"): {"training_config.yaml": text}}
    told = judging.judge(making.tuning(), documents.Documents((), template), AKS, on=TODAY)
    assert "7 rows" in told.memory[0].basis


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"training_config.yaml": ""}, "the top key training_config is missing"),
        ({"other": ""}, "has no key training_config.yaml, it has other"),
        ({"training_config.yaml": "training_config: {LoraConfig: {rank: 3}}"}, "LoraConfig.rank: unknown key"),
    ],
)
def test_a_config_that_cannot_be_used_is_an_error(data, words):
    made = making.tuning()
    made["tuning"]["config"] = "mine"
    told = judging.judge(made, documents.Documents((), {("team", "mine"): data}), AKS, on=TODAY)
    assert [(one.reason, one.field) for one in told.errors] == [("ConfigInvalid", "tuning.config")]
    assert words in told.errors[0].problem


def of_config(text):
    """What plan says of a server's config, and what preflight says."""
    made = making.inference()
    made["inference"]["config"] = "mine"
    data = {("team", "mine"): {"inference_config.yaml": text}}
    beside = documents.Documents((), data)
    told = judging.judge(made, beside, AKS, on=TODAY)
    workspace = making.parsed(made)
    return told, lambda: configs.inference(workspace, models.find(workspace), beside.config_map).warnings


@pytest.mark.parametrize("text", ["vllm: {max-model-len: 99999}", "vllm: {max-modell-len: 5}", "- no map"])
def test_of_a_servers_bad_config_preflight_says_the_same(text):
    told, preflight_says = of_config(text)
    with pytest.raises(errors.ConfigInvalidError) as refused:
        preflight_says()
    assert [f"{one.field}: {one.problem}" for one in told.errors] == [str(refused.value)]


@pytest.mark.parametrize(
    ("preset", "count", "refused"), [("phi-4", 4, True), ("phi-4", 2, False), ("acme/own", 3, False)]
)
def test_what_vllm_cannot_divide_a_model_among_is_refused_with_what_it_can(preset, count, refused):
    made = making.inference(annotations={"kaito.sh/runtime": "vllm"})
    made["inference"] |= {"config": "mine", "preset": {"name": preset}}
    text = f"vllm: {{tensor-parallel-size: {count}}}"
    beside = documents.Documents((), {("team", "mine"): {"inference_config.yaml": text}})
    told = judging.judge(made, beside, Settings(node_provider="aks", vllm_image="a.io/vllm:1"), on=TODAY)
    said = [one.problem for one in told.errors if "tensor-parallel-size: 4 GPUs cannot share phi-4" in one.problem]
    assert bool(said) == refused
    assert all("divided among 1, 2; write one of these" in each for each in said)


def test_of_what_has_no_effect_preflight_says_the_same():
    told, preflight_says = of_config("vllm: {max-model-len: 512, max-num-seqs: 4}\nmax_probe_steps: 3")
    assert [f"{one.field}: {one.problem}" for one in told.warnings] == list(preflight_says())
    assert told.warnings


def test_a_config_beside_a_pod_of_ones_own_has_no_effect():
    made = making.edited(making.inference(), inference={"template": {"spec": {"containers": [{}]}}, "config": "mine"})
    assert [one.field for one in judged(made).warnings] == ["inference.config"]


def test_rules_are_told_all_at_once_with_what_can_be_read_of_the_rest():
    made = making.tuning()
    made["metadata"]["name"] = "9-lives"
    made["inference"] = {"preset": {"name": "phi-4"}}
    made["resource"]["count"] = 2
    workspace, found = slips.parse(made)
    assert workspace is None
    assert {finding.field for finding in found} == {"metadata.name", "inference.preset.name", "resource.count"}


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        ({"resource": 5}, "resource", "5 cannot be used"),
        ({"resource": None}, "resource", "is missing"),
        ({"metadata": []}, "metadata", "cannot be used"),
        ({"inferenze": {}}, "inferenze", "did you mean inference?"),
        ({"apiVersion": None}, "apiVersion", "'None' is no version"),
        ({"inference": {"preset": {"nam": "x"}}}, "inference.preset.name", "is missing"),
        ({"inference": UNQUOTED}, "inference.adapters[0].strength", 'write it in quotes: "0.5"'),
        ({"inference": UNQUOTED}, "inference.adapters[0].name", "it belongs below inference.adapters[0].source"),
        ({"inference": {"preset": "phi-4"}}, "inference.preset", "write {name: phi-4}"),
        ({"inference": {"preset": {"adapters": []}}}, "inference.preset.adapters", "it belongs below inference"),
        ({"resource": {"capacity": "spot"}}, "resource.capacity", "write a list: [spot]"),
        ({"resource": {"count": "2"}}, "resource.count", "write it without quotes: 2"),
        ({"spec": {"resource": 5}}, "spec", "write what is in it one level up"),
        ({"resource": None, "spec": {"resource": 5}}, "resource", "5 cannot be used"),
        ({"preset": {}}, "preset", "it belongs below inference or tuning"),
        ({"urls": []}, "urls", "it belongs below tuning.input"),
        ({"labels": {}}, "labels", "it belongs below metadata"),
        ({"inference": OF_A_VOLUME}, "inference.adapters[0].source.volume", "did you mean volumeSource?"),
        ({"inference": {"preset": {"name": "x" * 100_000}}}, "inference.preset.name", "..."),
    ],
)
def test_a_slip_is_named_by_field_value_and_remedy(change, field, words):
    told = judged({**making.inference(), **change})
    assert not told.works
    said = next(one for one in told.errors if one.field == field)
    assert words in f"{said.problem}; {said.remedy}"
    assert len(said.problem) < 300


def test_what_follows_from_a_slip_is_not_told_as_another():
    made = making.tuning()
    made["tuning"]["input"] = {"urls": [5]}
    _, found = slips.parse(made)
    assert [finding.field for finding in found] == ["tuning.input.urls[0]"]


def test_a_list_of_objects_is_read_one_by_one():
    text = "kind: List\nitems:\n- {kind: Workspace, metadata: {name: a}}\n- {kind: Workspace, metadata: {name: b}}\n"
    read = documents.read(text, "x", "team")
    assert [obj["metadata"] for obj in read.workspaces] == [
        {"name": "a", "namespace": "team"},
        {"name": "b", "namespace": "team"},
    ]


def test_a_date_is_text_as_it_is_to_kubernetes():
    made = "kind: Workspace\nmetadata: {name: a, annotations: {when: 2026-01-01}}"
    assert documents.read(made, "x").workspaces[0]["metadata"]["annotations"] == {"when": "2026-01-01"}


def test_a_stored_workspace_whose_name_only_kaito_allowed_is_told():
    workspace, [finding] = slips.parse(making.inference(name="7b.x-chat"))
    assert (workspace, finding.field) == (None, "metadata.name")
