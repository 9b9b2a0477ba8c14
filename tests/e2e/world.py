"""A user's and an observer's view of the one-machine cluster: kubectl, curl, the registry, the cloud's bill."""

import contextlib
import json
import os
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import yaml

from kaito_hera import cluster as clusters
from kaito_hera import live, names
from tests.cluster import build, layout, shell

ROOT = Path(__file__).parents[2]
OPERATOR = "kaito-hera"
REPOSITORY = "kaito.azurecr.io"
PUSH_SECRET = "acr-push"


def until(look, *, what, seconds=120, pause=0.5):
    """Wait until `look()` is true; its value. `what` may be a function, so that a failure tells how things are then."""
    deadline = time.monotonic() + seconds
    while True:
        if found := look():
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"{what() if callable(what) else what}: not within {seconds} s")
        time.sleep(pause)


@dataclass
class World:
    """One running cluster with the product on it."""

    name: str = field(default_factory=lambda: os.environ.get("KAITO_HERA_CLUSTER", "demo"))

    @cached_property
    def machine(self) -> layout.Cluster:
        return layout.Cluster(self.name)

    @cached_property
    def kube(self) -> clusters.Cluster:
        os.environ["KUBECONFIG"] = str(self.machine.kubeconfig)
        return clusters.Cluster.connect()

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        command = [str(build.binary("kubectl")), "--kubeconfig", str(self.machine.kubeconfig), *arguments]
        end = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
        assert not check or end.returncode == 0, f"kubectl {' '.join(arguments)}: {end.stderr}"
        return end.stdout

    def inside(self, *command: str, check: bool = True) -> str:
        """Run a host's program in the cluster's network."""
        end = subprocess.run(
            shell.wrap(self.machine, list(command)),
            env=shell.environment(self.machine),
            capture_output=True,
            text=True,
            check=False,
        )
        assert not check or end.returncode == 0, f"{' '.join(command)}: {end.stderr}"
        return end.stdout

    # ------------------------------------------------------------------ a user

    def new_namespace(self, name: str = "") -> str:
        """A namespace with the push Secret that users have in theirs, under the strictest Pod Security."""
        name = name or f"team-{uuid.uuid4().hex[:6]}"
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        objects = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}]
        objects.append(self.push_secret(name, self.machine.registry_auth.read_text()))
        self.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
        return name

    def push_secret(self, namespace: str, auth: str) -> dict[str, object]:
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": PUSH_SECRET, "namespace": namespace},
            "type": "kubernetes.io/dockerconfigjson",
            "stringData": {".dockerconfigjson": auth},
        }

    def manifest(self, example: str, image: str = "") -> str:
        """A user's manifest with the placeholders filled that every user fills."""
        text = (ROOT / "examples" / f"{example}.yaml").read_text(encoding="utf-8")
        for placeholder in ("IMAGE_NAME_HERE", "ADAPTER_HERE"):
            text = text.replace(f"ACR_REPO_HERE.azurecr.io/{placeholder}:0.0.1", f"{REPOSITORY}/{image}:0.0.1")
        return text.replace("ACR_REGISTRY_SECRET_HERE", PUSH_SECRET)

    def apply(self, namespace: str, manifest: str) -> str:
        """`kubectl apply`; the Workspace's name."""
        self.kubectl("apply", "-n", namespace, "-f", "-", stdin=manifest)
        return str(yaml.safe_load(manifest)["metadata"]["name"])

    def delete(self, namespace: str, name: str, *, wait: bool = True, seconds: int = 120) -> None:
        self.kubectl(
            "delete", "workspace", "-n", namespace, name, f"--wait={str(wait).lower()}", f"--timeout={seconds}s"
        )

    def push_model(self, preset: str, image: str) -> str:
        """What a person does on a laptop: from the hub to the registry; the image by its digest."""
        return self.inside(str(ROOT / ".venv/bin/kaito-hera"), "model", "push", preset, image).strip()

    def chat(self, namespace: str, name: str, prompt: str, **generate: object) -> str:
        """`curl -X POST /chat` through the Service; greedy, only the answer."""
        body = {"prompt": prompt, "return_full_text": False}
        body["generate_kwargs"] = {"do_sample": False, "max_new_tokens": 40, **generate}
        answer = self._post(namespace, name, "/chat", body)
        return str(json.loads(answer)["Result"]).strip()

    def chat_with(self, namespace: str, name: str, model: str, prompt: str) -> str:
        """The OpenAI API, greedy, with a model of one's choice."""
        body = {"model": model, "messages": [{"role": "user", "content": prompt}], "temperature": 0, "max_tokens": 40}
        answer = json.loads(self._post(namespace, name, "/v1/chat/completions", body))
        return str(answer["choices"][0]["message"]["content"]).strip()

    @contextlib.contextmanager
    def forwarded(self, namespace: str, name: str) -> Iterator[str]:
        """`kubectl port-forward svc/NAME`, as a process beside us, to a port that is free; where that is."""
        command = [str(build.binary("kubectl")), "--kubeconfig", str(self.machine.kubeconfig), "port-forward"]
        command += ["-n", namespace, f"svc/{name}", ":80"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            try:
                said = process.stdout.readline()
                found = re.match(r"Forwarding from 127\.0\.0\.1:([0-9]+) -> ", said)
                assert found, f"{' '.join(command)}: {said}"
                yield f"localhost:{found[1]}"
            finally:
                process.terminate()

    def _post(self, namespace: str, name: str, path: str, body: dict[str, object]) -> str:
        address = self.kube.get(clusters.SERVICE, name, namespace)["spec"]["clusterIP"]
        header = ["-H", "accept: application/json", "-H", "Content-Type: application/json"]
        url = f"http://{address}{path}"
        return self.inside("curl", "-sS", "--max-time", "60", "-X", "POST", url, *header, "-d", json.dumps(body))

    # ------------------------------------------------------------------ an observer

    def workspace(self, namespace: str, name: str) -> dict[str, object] | None:
        return self.kube.get(clusters.WORKSPACE, name, namespace)

    def status(self, namespace: str, name: str) -> dict[str, object]:
        return (self.workspace(namespace, name) or {}).get("status", {})

    def condition(self, namespace: str, name: str, kind: str) -> dict[str, str]:
        conditions = self.status(namespace, name).get("conditions", [])
        return next((c for c in conditions if c["type"] == kind), {"status": "missing", "reason": "", "message": ""})

    def await_condition(self, namespace: str, name: str, kind: str, *, seconds: int = 900) -> dict[str, str]:
        """Wait until it is true of what is asked now, as `kubectl wait` does."""

        def look():
            stalled = self.condition(namespace, name, "Stalled")
            assert stalled["status"] != "True", f"{namespace}/{name} is stalled: {stalled}"
            asked = self.workspace(namespace, name)["metadata"]["generation"]
            found = self.condition(namespace, name, kind)
            return found if (found["status"], found.get("observedGeneration")) == ("True", asked) else None

        try:
            return until(look, what=f"{kind} of {namespace}/{name}", seconds=seconds)
        except AssertionError as failed:
            raise AssertionError(f"{failed}\n{self.story(namespace, name)}") from failed

    def await_step(self, namespace: str, step: str, *, seconds: int = 600) -> None:
        """Wait until Argo, as the watcher may be away, has begun a step; a short one may have ended before we look."""

        def look():
            flows = self.kube.items(clusters.WORKFLOW, OPERATOR, labels=f"{names.NAMESPACE}={namespace}")
            found = [live.steps(flow).get(step) for flow in flows]
            return any(one and one.phase in {"Running", *live.DONE} for one in found)

        until(look, what=f"step {step} of the Workflow for {namespace}", seconds=seconds, pause=0.1)

    def await_nothing_left(self, namespace: str, *, seconds: int = 60) -> None:
        """Wait until nothing exists for its Workspaces, in the cluster or on the bill."""

        def what():
            return f"nothing left of {namespace}, but there is {self.left(namespace)}"

        until(lambda: not self.left(namespace), what=what, seconds=seconds)

    def story(self, namespace: str, name: str) -> str:
        """What helps to understand a failure."""
        show = [sys.executable, "-m", "workflows", "show", "-n", namespace, name]
        environment = {**os.environ, "KUBECONFIG": str(self.machine.kubeconfig)}
        text = subprocess.run(show, capture_output=True, text=True, check=False, env=environment, cwd=ROOT).stdout
        pods = self.kubectl("get", "pods", "-n", namespace, "-o", "wide", check=False)
        log = self.kubectl("logs", "-n", OPERATOR, "deployment/kaito-hera", "--tail=15", check=False)
        return f"{text}\n{pods}\n{log}"

    def pools(self, namespace: str) -> list[str]:
        """Agent pools that Azure bills for the Workspaces of a namespace, whatever their state."""
        found = []
        for file in (self.machine.state / "azure/pools").glob("*.json"):
            pool = json.loads(file.read_text())
            owner = pool["properties"].get("tags", {}).get("kaito-hera-workspace", "")
            if owner.startswith(f"{namespace}/") and pool["state"] != "Deleted":
                found.append(pool["name"])
        return found

    def pools_ever(self, namespace: str) -> int:
        """How many pools were ever accepted for a namespace."""
        files = (self.machine.state / "azure/pools").glob("*.json")
        tags = [json.loads(file.read_text())["properties"].get("tags", {}) for file in files]
        return sum(1 for tag in tags if tag.get("kaito-hera-workspace", "").startswith(f"{namespace}/"))

    def left(self, namespace: str) -> dict[str, list[str]]:
        """What exists for the Workspaces of a namespace and should not after they are gone."""
        label = f"{names.NAMESPACE}={namespace}"
        kinds = {"nodes": (clusters.NODE, None), "workflows": (clusters.WORKFLOW, OPERATOR)}
        kinds |= {"jobs": (clusters.JOB, None), "deployments": (clusters.DEPLOYMENT, None)}
        found = {
            what: [obj["metadata"]["name"] for obj in self.kube.items(kind, where, labels=label)]
            for what, (kind, where) in kinds.items()
        }
        found["pools"] = self.pools(namespace)
        return {what: objects for what, objects in found.items() if objects}
