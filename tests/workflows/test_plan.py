import concurrent.futures
import json

import pytest

from kaito_hera import api, errors, names
from kaito_hera.intent import Parts
from kaito_hera.settings import Azure, Settings
from kaito_hera.status import NodesStatus, Refusal
from tests import making
from workflows import template
from workflows.plan import plan

AZURE = Azure(tenant_id="t", client_id="c", subscription_id="s", resource_group="g", cluster_name="a", location="l")

AKS = Settings(node_provider="aks", azure=AZURE)


def step_names(manifest):
    spec = manifest["spec"]
    groups = next(t["steps"] for t in spec["templates"] if t["name"] == spec["entrypoint"])
    return [step["name"] for group in groups for step in group]


def planned(workspace, parts, **options):
    settings = options.pop("settings", Settings())
    return plan(making.parsed(workspace), settings, attempt=1, parts=parts, **options)


@pytest.mark.parametrize(
    ("workspace", "parts", "expected"),
    [
        pytest.param(
            making.inference(),
            Parts(nodes=True, serve=True),
            ["preflight", "provision-nodes", "await-nodes", "roll-out"],
            id="serve",
        ),
        pytest.param(making.inference(), Parts(serve=True), ["preflight", "roll-out"], id="adapter-edit"),
        pytest.param(
            making.tuning(),
            Parts(nodes=True, tune=True, serve=True),
            ["preflight", "provision-nodes", "await-nodes", "train", "roll-out"],
            id="tune-then-serve",
        ),
        pytest.param(
            making.tuning(), Parts(tune=True, serve=True), ["preflight", "train", "roll-out"], id="tune-on-nodes-there"
        ),
        pytest.param(
            making.tuning_only(),
            Parts(nodes=True, tune=True),
            ["preflight", "provision-nodes", "await-nodes", "train", "release"],
            id="tune-only",
        ),
        pytest.param(making.tuning(), Parts(serve=True), ["preflight", "roll-out"], id="serve-what-was-tuned"),
        pytest.param(making.tuning(), None, ["release"], id="release"),
    ],
)
def test_an_attempt_has_the_steps_for_its_parts(workspace, parts, expected):
    assert step_names(planned(workspace, parts, settings=AKS)) == expected


@pytest.mark.parametrize("parts", [Parts(serve=True), Parts(tune=True, serve=True)], ids=["adapter-edit", "tune-again"])
def test_brought_nodes_are_asked_for_each_time_and_those_in_use_kept(parts):
    manifest = planned(making.tuning(), parts, adapter="a@sha256:1")
    assert step_names(manifest)[:3] == ["preflight", "provision-nodes", "await-nodes"]
    given = arguments(manifest)
    found = "{{steps.provision-nodes.outputs.parameters.hostnames}}"
    assert given["roll-out"]["hostnames"] == found, "without them the pod template would be another"
    assert given.get("train", given["roll-out"])["hostnames"] == found
    assert given["provision-nodes"]["keep"] == "true"
    first = arguments(planned(making.inference(), Parts(nodes=True, serve=True)))
    assert "keep" not in first["provision-nodes"]


def of_several(workspace):
    del workspace["resource"]["instanceType"]
    workspace["resource"] |= {"instanceTypes": ["Standard_A", "Standard_B"], "capacity": ["spot", "on-demand"]}
    return workspace


@pytest.mark.parametrize("workspace", [making.inference(), making.tuning()], ids=["serve", "tune"])
def test_where_several_kinds_of_node_would_do_what_is_known_goes_in_and_the_choice_goes_on(workspace):
    known = NodesStatus(refused=(Refusal(candidate="Standard_A/spot", reason="{{workflow.name}}"),))
    parts = Parts(nodes=True, tune="tuning" in workspace, serve=True)
    given = arguments(planned(of_several(workspace), parts, settings=AKS, nodes=known))
    asked = given["provision-nodes"]
    assert json.loads(asked["refused"])[0]["candidate"] == "Standard_A/spot"
    assert "{{" not in asked["refused"]
    assert asked["left_out"] == "{{steps.preflight.outputs.parameters.left-out}}"
    chosen = "{{steps.provision-nodes.outputs.parameters.candidate}}"
    later = [name for name in given if name not in {"preflight", "provision-nodes"}]
    assert {name: given[name]["candidate"] for name in later} == dict.fromkeys(later, chosen)


def test_an_attempt_on_nodes_that_are_there_knows_of_which_kind_they_are():
    known = NodesStatus(candidate="Standard_B/spot")
    given = arguments(planned(of_several(making.inference()), Parts(serve=True), settings=AKS, nodes=known))
    assert given["roll-out"]["candidate"] == "Standard_B/spot"


def test_only_where_nodes_were_ordered_may_those_of_an_earlier_kind_be_left():
    ordered, not_ordered = (
        arguments(planned(making.inference(), Parts(nodes=nodes, serve=True), settings=AKS)) for nodes in (True, False)
    )
    assert ordered["roll-out"]["fresh"] == "true"
    assert "fresh" not in not_ordered["roll-out"]


def test_of_one_kind_nothing_of_this_is_told():
    given = arguments(planned(making.inference(), Parts(nodes=True, serve=True), settings=AKS))
    assert not {"candidate", "refused", "left_out"} & {name for step in given.values() for name in step}


def test_an_attempt_with_nothing_to_do_is_no_release():
    with pytest.raises(errors.InternalError, match="attempt 1 of team/w has nothing to do"):
        planned(making.inference(), Parts())


def arguments(manifest):
    """By step."""
    groups = next(t["steps"] for t in manifest["spec"]["templates"] if t["name"] == "main")
    return {
        step["name"]: {p["name"]: p["value"] for p in step["arguments"]["parameters"]}
        for group in groups
        for step in group
    }


def test_without_a_server_to_follow_no_node_is_bought_for_an_adapter_that_is_there():
    manifest = planned(making.tuning_only(), Parts(nodes=True, tune=True))
    groups = next(t["steps"] for t in manifest["spec"]["templates"] if t["name"] == "main")
    guarded = {step["name"]: step.get("when") for group in groups for step in group}
    found = "'{{steps.preflight.outputs.parameters.adapter}}' == ''"
    assert guarded == {
        "preflight": None,
        "provision-nodes": found,
        "await-nodes": found,
        "train": found,
        "release": None,
    }


def test_what_was_tuned_travels_by_digest():
    manifest = planned(making.tuning(), Parts(serve=True), adapter="team.azurecr.io/a@sha256:1")
    assert "team.azurecr.io/a@sha256:1" in str(manifest)


@pytest.mark.parametrize("text", ["{{=toJson(workflow)}}", "{{workflow.serviceAccountName}}", "{{{{{", "\\{{x}}"])
def test_argo_substitutes_nothing_in_what_a_user_wrote(text):
    written = making.tuning()
    written["tuning"]["input"] = {"name": text, "urls": [f"https://example.com/{text}"]}
    written["resource"]["labelSelector"] = {"matchLabels": {"app": text}}
    settings = Settings(argo_url=text)
    manifest = planned(written, Parts(nodes=True, tune=True, serve=True), settings=settings)
    values = {p["name"]: p["value"] for p in manifest["spec"]["arguments"]["parameters"]}
    assert "{{" not in values["workspace"] + values["settings"] + str(manifest["metadata"])
    assert text not in str({**manifest, "spec": {**manifest["spec"], "arguments": {}}})
    assert json.loads(values["workspace"]) == making.parsed(written).intent()
    assert Settings.model_validate_json(values["settings"]) == settings


@pytest.mark.parametrize("text", ["{{workflow.name}}", "{{{=1+1}}}", "{{{{{"])
def test_argo_substitutes_nothing_in_a_warning(text):
    assert "{{" not in template.inert((text,))[0]


def test_no_default_of_a_cluster_removes_a_workflow_before_its_end_was_read():
    kept = planned(making.inference(), Parts(serve=True))["spec"]["ttlStrategy"]
    assert set(kept) == {"secondsAfterCompletion", "secondsAfterSuccess", "secondsAfterFailure"}
    assert min(kept.values()) > 365 * 24 * 3600


def test_names_fit_and_never_collide():
    long = making.inference(name="w" * 63, namespace="n" * 63)
    other = making.inference(name="w" * 62 + "x", namespace="n" * 63)
    first, second = (names.workflow(making.parsed(w), 12) for w in (long, other))
    assert len(first) == len(second) == 63
    assert first != second
    assert first.endswith("-11111-g1-a12")


def test_steps_carry_what_the_settings_ask_for():
    settings = Settings(
        node_provider="aks", azure=AZURE, ca_bundle="authorities", pull_secret="pull", argo_instance_id="x"
    )
    manifest = planned(making.inference(), Parts(nodes=True, serve=True), settings=settings)
    scripts = [t["script"] for t in manifest["spec"]["templates"] if "script" in t]
    assert len(scripts) == 4
    for script in scripts:
        assert {"name": "SSL_CERT_FILE", "value": "/etc/kaito/ca/ca.crt"} in script["env"]
        assert {m["name"] for m in script["volumeMounts"]} == {"tmp", "ca", "azure"}
        assert script["securityContext"]["readOnlyRootFilesystem"] is True
    assert {v["name"] for v in manifest["spec"]["volumes"]} == {"tmp", "ca", "azure"}
    assert manifest["spec"]["imagePullSecrets"] == [{"name": "pull"}]
    assert manifest["metadata"]["labels"]["workflows.argoproj.io/controller-instanceid"] == "x"


def test_plans_made_in_many_threads_do_not_mix():
    def one(number):
        workspace = making.tuning(name=f"w{number}") if number % 2 else making.inference(name=f"w{number}")
        parts = Parts(nodes=True, tune=bool(number % 2), serve=True)
        manifest = planned(workspace, parts)
        return number, step_names(manifest), manifest["metadata"]["labels"][names.WORKSPACE]

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for number, found, name in pool.map(one, range(200)):
            assert name == f"w{number}"
            assert len(found) == (5 if number % 2 else 4)


def test_a_release_carries_no_more_than_who_it_is_for():
    workspace = making.tuning(annotations={"kaito.sh/serve": "x" * 10_000})
    workspace["tuning"]["input"]["urls"] = ["https://example.com/" + "x" * 2000] * 28
    given = {p["name"]: p["value"] for p in planned(workspace, None)["spec"]["arguments"]["parameters"]}
    assert len(given["workspace"]) < 1000
    identity = api.Workspace.parse(json.loads(given["workspace"]))
    assert (identity.key, identity.metadata.uid) == ("team/w", making.UID)
    whole = {p["name"]: p["value"] for p in planned(workspace, Parts(tune=True))["spec"]["arguments"]["parameters"]}
    assert len(whole["workspace"]) < 65_536, "an argument of a process holds twice as much"


def test_an_attempt_may_last_as_long_as_all_that_may_be_asked_of_it():
    longest = 30 * 24 * 3600
    workspace = making.tuning()
    workspace["resource"]["provisioningTimeoutSeconds"] = workspace["tuning"]["activeDeadlineSeconds"] = longest
    workspace["inference"] = {**making.inference()["inference"], "progressDeadlineSeconds": longest}
    manifest = planned(workspace, Parts(nodes=True, tune=True, serve=True))
    assert manifest["spec"]["activeDeadlineSeconds"] > 3 * longest
