"""Pods of the users' own (inference.template) against a real API server: what they become, and what is said of them."""

import copy

import pytest

from kaito_hera import checks, errors, names, nodes, ownpod, rollout
from kaito_hera import cluster as clusters
from kaito_hera.api import Workspace
from kaito_hera.run import Run
from tests import making
from workflows import asks

PLACEMENT = nodes.Placement(labels={"app": "phi"})
TWO_NODES = nodes.Placement(labels={"app": "phi"}, hostnames=("one", "two"))
SAFE = {
    "allowPrivilegeEscalation": False,
    "runAsNonRoot": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
CONTAINER = {"name": "llama", "image": "team.azurecr.io/llama:1", "args": ["run", "--address=:5000"]}
POD = {"spec": {"containers": [{**CONTAINER, "securityContext": SAFE}]}}
EVERYTHING = {
    "metadata": {"labels": {"theirs": "1", names.WORKSPACE: "other"}, "annotations": {"scrape": "true"}},
    "spec": {
        "serviceAccountName": "reader",
        "automountServiceAccountToken": False,
        "imagePullSecrets": [{"name": "own"}],
        "nodeSelector": {"disk": "nvme", "app": "phi"},
        "tolerations": [{"key": "team", "operator": "Exists"}, {"key": nodes.GPU, "operator": "Exists"}],
        "terminationGracePeriodSeconds": 7,
        "initContainers": [{"name": "fetch", "image": "team.azurecr.io/fetch:1", "command": ["fetch", "weights"]}],
        "containers": [
            {
                **CONTAINER,
                "env": [{"name": "HF_HOME", "value": "/data"}, {"name": "EMPTY"}],
                "ports": [{"name": "http", "containerPort": 5000, "protocol": "TCP"}],
                "livenessProbe": {"httpGet": {"path": "/healthz", "port": 5000}, "initialDelaySeconds": 600},
                "resources": {"limits": {nodes.GPU: 1}, "requests": {nodes.GPU: 1, "cpu": "2"}},
                "volumeMounts": [{"name": "dshm", "mountPath": "/dev/shm"}],
            },
            {"name": "sidecar", "image": "team.azurecr.io/proxy:1"},
        ],
        "volumes": [{"name": "dshm", "emptyDir": {"medium": "Memory"}}],
    },
}


def workspace(template=POD, *, count=1, size="Standard_NC24ads_A100_v4", annotations=None, **inference):
    given = making.edited(making.inference(), count=count, instanceType=size)
    given["metadata"]["annotations"] = annotations or {}
    return {**given, "inference": {"template": template, **inference}}


def changed(**spec):
    """The smallest pod with other fields."""
    return {"spec": {**copy.deepcopy(POD)["spec"], **spec}}


@pytest.fixture
def rolled_out(cluster, settings):
    def roll_out(stored, placement=PLACEMENT):
        parsed = Workspace.parse(stored)
        run = Run(cluster, parsed, settings, provider=None)
        rollout.apply(run, asks.serving.server(run, ""), placement)
        return cluster.get(clusters.DEPLOYMENT, "w", parsed.metadata.namespace)

    return roll_out


@pytest.fixture
def judged(cluster, apply, settings):
    """Preflight's dry runs."""

    def judge(stored, placement=PLACEMENT):
        parsed = Workspace.parse(stored)
        for kind, obj in rollout.objects(parsed, settings, None, placement).items():
            checks.dry_run(cluster, parsed, kind, obj)

    return judge


def within(part, whole):
    """Whether everything in `part` stands in `whole`, which may have more (defaults)."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(key in whole and within(part[key], whole[key]) for key in part)
    if isinstance(part, list):
        return isinstance(whole, list) and len(part) <= len(whole) and all(map(within, part, whole))
    return str(part) == str(whole)


def test_the_user_s_pod_is_kept_as_it_is_written(apply, rolled_out):
    made = rolled_out(apply(workspace(EVERYTHING)))
    template = made["spec"]["template"]
    written = copy.deepcopy(EVERYTHING)
    del written["metadata"]["labels"][names.WORKSPACE]
    assert within(written, template)
    assert set(template["spec"]["nodeSelector"]) == {"disk", "app"}
    assert [each["key"] for each in template["spec"]["tolerations"]] == [
        "team", nodes.GPU, "sku", nodes.GPU, "kubernetes.azure.com/scalesetpriority",
    ]  # fmt: skip
    assert "securityContext" not in template["spec"]["containers"][0]
    assert template["metadata"]["labels"][names.WORKSPACE] == "w"
    assert made["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()


def test_it_gets_the_service_and_none_of_the_operator_s_objects(cluster, apply, rolled_out, namespace):
    rolled_out(apply(workspace()))
    ports = cluster.get(clusters.SERVICE, "w", namespace)["spec"]["ports"]
    assert [(port["port"], port["targetPort"]) for port in ports] == [(80, 5000), (29500, 29500)]
    for kind in (clusters.CONFIG_MAP, clusters.SECRET, clusters.NETWORK_POLICY):
        assert cluster.items(kind, namespace, labels=f"{names.WORKSPACE}=w") == []


@pytest.mark.parametrize(("size", "gpus"), [("Standard_NC24ads_A100_v4", "1"), ("Standard_NC96ads_A100_v4", "4")])
def test_a_pod_that_asks_for_no_gpu_gets_those_of_its_node(apply, rolled_out, size, gpus):
    first, second = {**CONTAINER, "resources": {"requests": {"cpu": "1"}}}, {"name": "sidecar", "image": "i"}
    made = rolled_out(apply(workspace({"spec": {"containers": [first, second]}}, size=size)))
    resources = [each["resources"] for each in made["spec"]["template"]["spec"]["containers"]]
    assert resources == [{"limits": {nodes.GPU: gpus}, "requests": {"cpu": "1"}}, {}]
    (note,) = ownpod.notes(making.parsed(workspace({"spec": {"containers": [first, second]}}, size=size)))
    assert note.startswith("inference.template: no container asks for a GPU, so the first gets all of a node's")


@pytest.mark.parametrize(
    "fields",
    [
        {"containers": [CONTAINER, {**CONTAINER, "name": "b", "resources": {"limits": {nodes.GPU: "2"}}}]},
        {"initContainers": [{**CONTAINER, "name": "b", "resources": {"limits": {"nvidia.com/mig-1g.10gb": 1}}}]},
        {"resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "gpu"}]},
        {"containers": [CONTAINER, {**CONTAINER, "name": "b", "resources": {"limits": {nodes.GPU: 0}}}]},
    ],
    ids=["another container", "a slice", "a claim", "none"],
)
def test_a_pod_that_asks_in_its_own_way_gets_no_more(apply, rolled_out, fields):
    stored = apply(workspace(changed(**fields)))
    assert ownpod.notes(Workspace.parse(stored)) == ()
    made = rolled_out(stored)
    assert "limits" not in made["spec"]["template"]["spec"]["containers"][0].get("resources", {})


def test_each_of_the_user_s_alternatives_is_bound_to_the_workspace_s_nodes(apply, rolled_out):
    zones = [{"key": "zone", "operator": "In", "values": [zone]} for zone in "ab"]
    preferred = [{"weight": 1, "preference": {"matchExpressions": [zones[0]]}}]
    node = {
        "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": [zone]} for zone in zones]
        },
        "preferredDuringSchedulingIgnoredDuringExecution": preferred,
    }
    apart = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"theirs": "1"}}}
    pods = {"requiredDuringSchedulingIgnoredDuringExecution": [apart]}
    template = changed(affinity={"nodeAffinity": node, "podAntiAffinity": pods})
    made = rolled_out(apply(workspace(template)), TWO_NODES)["spec"]["template"]["spec"]["affinity"]
    assert made["podAntiAffinity"] == pods
    assert made["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"] == preferred
    terms = made["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert [(t["matchExpressions"][0]["values"][0], t["matchFields"][0]["values"][0]) for t in terms] == [
        ("a", "one"), ("a", "two"), ("b", "one"), ("b", "two"),
    ]  # fmt: skip


def test_an_edit_is_rolled_out_and_what_was_taken_out_goes(cluster, apply, rolled_out, namespace):
    stored = apply(workspace(EVERYTHING))
    rolled_out(stored)
    edited = copy.deepcopy(EVERYTHING)
    del edited["spec"]["initContainers"], edited["spec"]["nodeSelector"], edited["metadata"]["annotations"]
    first = edited["spec"]["containers"][0]
    first["env"], first["image"] = first["env"][:1], "team.azurecr.io/llama:2"
    del first["livenessProbe"], edited["spec"]["containers"][1]
    patch = [{"op": "replace", "path": "/inference/template", "value": edited}]
    path = f"/apis/kaito.sh/v1beta1/namespaces/{namespace}/workspaces/w"
    changed = cluster._json("PATCH", path, {}, patch, content_type="application/json-patch+json")
    spec = rolled_out(changed)["spec"]["template"]["spec"]
    assert "initContainers" not in spec
    assert spec["nodeSelector"] == {"app": "phi"}
    assert [c["name"] for c in spec["containers"]] == ["llama"]
    assert spec["containers"][0]["env"] == [{"name": "HF_HOME", "value": "/data"}]
    assert "livenessProbe" not in spec["containers"][0]
    assert spec["containers"][0]["image"] == "team.azurecr.io/llama:2"


def test_applying_again_changes_nothing(apply, rolled_out):
    stored = apply(workspace(EVERYTHING))
    first, second = rolled_out(stored), rolled_out(stored)
    assert first["metadata"]["resourceVersion"] == second["metadata"]["resourceVersion"]


def test_a_template_as_kubectl_prints_it_is_taken(apply, rolled_out, judged):
    container = {
        **CONTAINER,
        "securityContext": SAFE,
        "resources": {},
        "terminationMessagePath": "/dev/termination-log",
    }
    template = {
        "metadata": {"creationTimestamp": None, "labels": None, "name": "other", "namespace": "elsewhere"},
        "spec": {"containers": [container], "restartPolicy": "Always", "affinity": None, "volumes": None},
    }
    stored = apply(workspace(template))
    judged(stored, TWO_NODES)
    assert rolled_out(stored, TWO_NODES)["spec"]["template"]["spec"]["containers"][0]["name"] == "llama"


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ({}, "inference.template.spec.containers: Required value"),
        ({"spec": {}}, "inference.template.spec.containers: Required value"),
        ({"spec": {"containers": []}}, "inference.template.spec.containers: Required value"),
        ({"spec": "x"}, "inference.template.spec: 'x' is no object"),
        ({"spec": {"containers": "x"}}, "inference.template.spec.containers: 'x' is no list"),
        ({"spec": {"containers": ["x"]}}, "inference.template.spec.containers"),
        ({"metadata": ["x"], **POD}, "inference.template.metadata: ['x'] is no object"),
        ({"metadata": {"lables": {}}, **POD}, 'unknown field "inference.template.metadata.lables"'),
        (changed(nodeSelektor={}), 'unknown field "inference.template.spec.nodeSelektor"'),
        (changed(nodeSelector="x"), "inference.template.spec.nodeSelector: 'x' is no object"),
        (changed(nodeSelector={"app": "x"}), "inference.template.spec.nodeSelector: app is 'x', but the Workspace's"),
        (changed(restartPolicy="Never"), 'inference.template.spec.restartPolicy: Unsupported value: "Never"'),
        (changed(serviceAccountName="x" * 300), "inference.template.spec.serviceAccountName: Invalid value"),
        (changed(containers=[CONTAINER, CONTAINER]), "inference.template.spec.containers[1].name: Duplicate value"),
        (changed(containers=[{"name": "A_B", "image": "i"}]), "inference.template.spec.containers[0].name: Invalid"),
        (changed(containers=[{"name": "x" * 40_000, "image": "i"}]), "inference.template.spec.containers[0].name: "),
        (
            changed(containers=[{**CONTAINER, "securityContext": SAFE, "env": [{"name": "A"}, {"name": "A"}]}]),
            "inference.template.spec.containers",
        ),
        (
            changed(containers=[{**CONTAINER, "resources": {"limits": {nodes.GPU: "many"}}}]),
            "inference.template",
        ),
        (changed(volumes=[{"name": "v", "hostPath": {"path": "/"}}]), "inference.template.spec.volumes[0].hostPath"),
        (changed(affinity={"nodeAffinity": "x"}), "inference.template.spec.affinity.nodeAffinity: 'x' is no object"),
    ],
)
def test_a_bad_template_is_told_by_its_field_where_no_policy_was_there(judged, namespace, template, words):
    unseen = workspace(template)
    unseen["metadata"]["namespace"] = namespace
    with pytest.raises(errors.InvalidWorkspaceError) as raised:
        judged(unseen, TWO_NODES)
    assert words in str(raised.value)
    assert len(str(raised.value)) < 1500


def test_an_image_volume_that_the_api_server_would_drop_is_refused(apply, judged):
    image = {"name": "v", "image": {"reference": "a.io/data:1"}}
    with pytest.raises(errors.InvalidWorkspaceError, match=r"inference.template.spec.volumes: .*a.io/data:1.* has no"):
        judged(apply(workspace(changed(volumes=[image]))))


def test_pod_security_of_the_namespace_judges_it(apply, judged):
    with pytest.raises(errors.ForbiddenError, match=r"inference.template: .* violates PodSecurity .restricted"):
        judged(apply(workspace({"spec": {"containers": [CONTAINER]}})))


def test_an_edit_is_judged_while_the_server_runs(cluster, apply, rolled_out, judged, namespace):
    rolled_out(apply(workspace()))
    broken = changed(containers=[{**CONTAINER, "ports": [{"containerPort": 99999}]}])
    edited = cluster.patch(clusters.WORKSPACE, "w", namespace, {"inference": {"template": broken}})
    with pytest.raises(errors.InvalidWorkspaceError, match=r"inference.template.spec.containers\[0\].ports\[0\]"):
        judged(edited)


def test_a_load_balancer_comes_and_goes_with_its_annotation(cluster, apply, rolled_out, namespace):
    stored = apply(workspace(annotations={"kaito.sh/enablelb": "True"}))
    rolled_out(stored)
    service = cluster.get(clusters.SERVICE, "w", namespace)
    assert service["spec"]["type"] == "LoadBalancer"
    assert all(port.get("nodePort") for port in service["spec"]["ports"])
    without = cluster.patch(
        clusters.WORKSPACE, "w", namespace, {"metadata": {"annotations": {"kaito.sh/enablelb": None}}}
    )
    rolled_out(without)
    after = cluster.get(clusters.SERVICE, "w", namespace)
    assert after["spec"]["type"] == "ClusterIP"
    assert after["spec"]["clusterIP"] == service["spec"]["clusterIP"]
    assert not any(port.get("nodePort") for port in after["spec"]["ports"])


def test_the_user_s_deadline_is_the_deployment_s(apply, rolled_out):
    assert rolled_out(apply(workspace(progressDeadlineSeconds=90)))["spec"]["progressDeadlineSeconds"] == 90
