"""What KAITO's controller and gpu-provisioner leave of one Workspace, in v0.3 and in v0.12."""

import datetime
import json

from kaito_hera import cluster as clusters
from kaito_hera import errors, inherited, nodes, status
from kaito_hera.api import Workspace
from kaito_hera.nodes import claims
from tests import making

A100 = "Standard_NC24ads_A100_v4"
CRD = clusters.Kind(
    "CustomResourceDefinition", "customresourcedefinitions", group="apiextensions.k8s.io", namespaced=False
)
POOL, CLAIM, BETA, MACHINE = claims._POOL, *claims._CLAIMS
HEADLESS = "w-headless"


def crd(kind, *versions):
    anything = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    served = [
        {"name": version, "served": True, "storage": version == versions[0], "schema": anything} for version in versions
    ]
    called = {"kind": kind.name, "plural": kind.plural, "singular": kind.name.lower()}
    spec = {"group": kind.group, "scope": "Cluster", "names": called, "versions": served}
    api_group = "unapproved, a test's own"
    metadata = {"name": f"{kind.plural}.{kind.group}", "annotations": {"api-approved.kubernetes.io": api_group}}
    return {"metadata": metadata, "spec": spec}


def answers(cluster, kind):
    try:
        return cluster.page(kind) is not None
    except errors.KaitoError:
        return False


def kind_of(kind):
    return {"apiVersion": kind.api_version, "kind": kind.name}


def tuning_pod(tuning, era):
    """The pod of KAITO's tuning Job, with whatever tells what it tunes."""
    preset, output, asked = tuning["preset"]["name"], tuning["output"].get("image"), tuning["input"]
    kept = tuning.get("config") or f"{tuning['method']}-params-template"
    volumes = [{"name": "config-volume", "configMap": {"name": kept}}]
    volumes.append({"name": "data-volume", **asked.get("volumeSource", {"emptyDir": {}})})
    old = era == "v0.3"
    main = {"name": "w", "image": f"mcr.microsoft.com/aks/kaito/kaito-{preset if old else 'base'}:0.0.4"}
    first, beside = [], []
    if urls := asked.get("urls"):
        env = [{"name": "DATA_URLS", "value": " ".join(urls)}]
        first.append({"name": "data-downloader", "image": "curlimages/curl", "env": env})
    if image := asked.get("image"):
        pulls = {"image": "mcr.microsoft.com/aks/skopeo:1.14.4-6", "args": [f"IMG_REF='{image}'\nskopeo copy"]}
        first.append({"name": "data-extractor", "image": image} if old else {"name": "puller", **pulls})
    if output and old:
        script = f'docker build -t {output} "$TEMP_CONTEXT"\n    docker push {output}\n'
        beside.append({"name": "docker-sidecar", "image": "docker:dind", "args": [script]})
    elif output:
        marks = json.dumps({"$manifest": {"sh.kaito.model.name": preset}}, separators=(",", ":"))
        script = f"IMG_REF='{output}'\nANNOTATIONS_DATA='{marks}'\n"
        beside.append({"name": "pusher", "image": "ghcr.io/oras-project/oras:v1.2.2", "args": [script]})
    return {"restartPolicy": "Never", "volumes": volumes, "initContainers": first, "containers": [main, *beside]}


class Kaito:
    """What KAITO's controller and gpu-provisioner leave of one Workspace."""

    def __init__(self, cluster, stored):
        self.cluster, self.owner = cluster, stored["metadata"]
        self.namespace = self.owner["namespace"]
        self._made = []

    def claim(self, name, *, kind=CLAIM, size=A100, node=True, ready=True, away=0, age=0, **more):
        labels = {"kaito.sh/workspace": "w", "kaito.sh/workspacenamespace": self.namespace, "app": "phi", **more}
        if node:
            self.join(f"aks-{name}", labels, size, ready, away)
        wanted = [{"key": nodes.SIZE, "operator": "In", "values": [size]}]
        full = {"name": f"{name}-{self.namespace}", "labels": labels, "finalizers": ["karpenter.sh/termination"]}
        obj = {**kind_of(kind), "metadata": full, "spec": {"requirements": wanted}}
        obj["status"] = {"nodeName": f"aks-{name}-{self.namespace}"} if node else {}
        made = self.cluster.create(kind, obj)
        return made["metadata"]["name"]

    def join(self, name, labels, size, ready, away):
        full = f"{name}-{self.namespace}"
        self.cluster.create(clusters.NODE, {"metadata": {"name": full, "labels": {**labels, nodes.SIZE: size}}})
        since = status.rfc3339(datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=away))
        state = {"type": "Ready", "status": str(ready), "reason": "K", "message": "m", "lastTransitionTime": since}
        seen = {"conditions": [state], "allocatable": {"nvidia.com/gpu": "1"}}
        self.cluster.patch(clusters.NODE, full, None, {"status": seen}, subresource="status")
        self._made.append(full)

    def server(self, kind):
        labels = {"kaito.sh/workspace": "w"}
        pod = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "w", "image": "kaito-base"}]}}
        spec = {"selector": {"matchLabels": labels}, "template": pod}
        if kind is inherited.STATEFUL_SET:
            spec["serviceName"] = HEADLESS
        return self.cluster.create(kind, {"metadata": self._metadata("w"), "spec": spec})

    def services(self):
        """As v0.12: traffic to the first pod, ready or not, and more ports than ours."""
        ports = [{"name": f"p{port}", "port": port, "targetPort": port} for port in (6379, 8265, 5557)]
        ports.append({"name": "http", "port": 80, "targetPort": 5000})
        selector = {"kaito.sh/workspace": "w", "statefulset.kubernetes.io/pod-name": "w-0"}
        spec = {"ports": ports, "selector": selector, "publishNotReadyAddresses": True}
        made = self.cluster.create(clusters.SERVICE, {"metadata": self._metadata("w"), "spec": spec})
        headless = {"clusterIP": "None", "selector": {"kaito.sh/workspace": "w"}}
        self.cluster.create(clusters.SERVICE, {"metadata": self._metadata(HEADLESS), "spec": headless})
        return made

    def job(self, end="", tuning=None, era="v0.12"):
        pod = tuning_pod(tuning or making.tuning()["tuning"], era)
        labels = {"kaito.sh/workspace": "w"}
        spec = {"template": {"metadata": {"labels": labels}, "spec": pod}}
        made = self.cluster.create(clusters.JOB, {"metadata": self._metadata("w", labels), "spec": spec})
        if end:
            now = status.rfc3339(datetime.datetime.now(datetime.UTC))
            before = {"Complete": "SuccessCriteriaMet", "Failed": "FailureTarget"}[end]
            told = [{"type": kind, "status": "True", "lastTransitionTime": now} for kind in (before, end)]
            ended = {"conditions": told, "startTime": now}
            if end == "Complete":
                ended["completionTime"] = now
            self.cluster.patch(clusters.JOB, "w", self.namespace, {"status": ended}, subresource="status")
        return made

    def _metadata(self, name, labels=None):
        owner = {"apiVersion": "kaito.sh/v1alpha1", "kind": "Workspace", "name": "w", "uid": self.owner["uid"]}
        owners = [owner | {"controller": True, "blockOwnerDeletion": True}]
        return {"name": name, "namespace": self.namespace, "labels": labels or {}, "ownerReferences": owners}

    def clear(self):
        for name in self._made:
            self.cluster.delete(clusters.NODE, name)


class Cloud:
    """A provider that notes what it is asked for."""

    makes_nodes = True

    def __init__(self):
        self.ordered, self.checked, self.released, self.dropped = [], [], [], []

    def order(self, want, *, still_wanted, any_ready):
        self.ordered.append(want.count)
        return nodes.Order(candidate=f"{want.size.name}/on-demand")

    def drop(self, want, *, still_wanted):
        self.dropped.append(want.candidate)

    def drop_others(self, want):
        pass

    def check(self, want):
        self.checked.append(want.count)

    def release(self, uid):
        self.released.append(uid)
        return True

    def placement(self, want, hostnames=()):
        return nodes.Placement(nodes.owner_labels(want) | {nodes.SIZE: want.size.name}, absent=(nodes.POOL,))


def order(provider, want):
    return provider.order(want, still_wanted=lambda: None, any_ready=lambda: False)


def want_of(stored, count=1):
    return nodes.wanted(Workspace.parse(making.edited(stored, count=count)))
