"""A user applies the inference manifest, looks at it with kubectl, and asks it from another pod and through kubectl."""

import json
import re
import subprocess

import openai

from kaito_hera import cluster as clusters
from kaito_hera import pods
from tests.cluster.simulators.content import facts
from tests.e2e.world import ROOT, until

NAME, PRESET = "workspace-phi-3-mini", "phi-3-mini-4k-instruct"


def test_the_inference_manifest_to_the_letter(world, namespace, monkeypatch):
    assert world.apply(namespace, world.manifest("inference-phi-3")) == NAME
    world.await_condition(namespace, NAME, "WorkspaceReady")
    header, row = world.kubectl("get", "-n", namespace, "workspaces.v1alpha1.kaito.sh", NAME).splitlines()
    assert header.split() == ["NAME", "INSTANCE", "RESOURCEREADY", "INFERENCEREADY", "WORKSPACEREADY", "AGE"]
    assert row.split()[:5] == [NAME, "Standard_NC6s_v3", "True", "True", "True"]
    service = world.kubectl("get", "-n", namespace, "svc", NAME).splitlines()[1].split()
    assert service[1] == "ClusterIP"
    assert service[4] == "80/TCP,29500/TCP"
    assert world.pools(namespace), "a pool was made"
    assert json.loads(_ask_from_another_pod(world, namespace))["Result"].endswith(facts.UNKNOWN)

    monkeypatch.setenv("no_proxy", "localhost,127.0.0.1", prepend=",")  # of a proxy that this machine may have
    with world.forwarded(namespace, NAME) as address:
        _ask_with_the_readme_s_line(address)
        _ask_with_openai_s_client(address)

    assert world.chat(namespace, NAME, facts.FACTS[0].question) == facts.UNKNOWN
    _a_lost_deployment_comes_back(world, namespace)
    world.delete(namespace, NAME)
    assert not world.pools(namespace)


def _ask_with_the_readme_s_line(address):
    """As it stands there, to the port that was free."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"$ kubectl port-forward svc/{NAME} 8080:80 &\n" in readme
    line = re.search(r"^\$ (curl localhost:8080/v1/chat/completions .*?)\n\$ ", readme, re.DOTALL | re.MULTILINE)[1]
    command = line.replace("localhost:8080", address).replace("YOUR QUESTION HERE", facts.FACTS[0].question)
    end = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False, timeout=120)
    assert end.returncode == 0, end.stderr
    answer = json.loads(end.stdout)
    assert answer["model"] == PRESET, answer
    assert answer["choices"][0]["message"]["content"], answer


def _ask_with_openai_s_client(address):
    """Whole and streamed: the same answer, through one and the same forward."""
    asked = {"messages": [{"role": "user", "content": facts.FACTS[0].question}], "temperature": 0, "max_tokens": 40}
    with openai.OpenAI(base_url=f"http://{address}/v1", api_key="none", timeout=120) as client:
        assert PRESET in [model.id for model in client.models.list()]
        whole = client.chat.completions.create(model=PRESET, **asked)
        chunks = list(client.chat.completions.create(model=PRESET, stream=True, **asked))
    assert whole.choices[0].message.content.strip() == facts.UNKNOWN
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert streamed == whole.choices[0].message.content


def _ask_from_another_pod(world, namespace):
    """curl's part is played by Python, which is there: the operator's image in a pod of the user's own."""
    address = world.kube.get(clusters.SERVICE, NAME, namespace)["spec"]["clusterIP"]
    program = (
        "import json, urllib.request as r;"
        "body = json.dumps({'prompt': 'Who are you?'}).encode();"
        f"asked = r.Request('http://{address}/chat', body, {{'Content-Type': 'application/json'}});"
        "print(r.urlopen(asked, timeout=60).read().decode())"
    )
    operator = world.kube.get(clusters.DEPLOYMENT, "kaito-hera", "kaito-hera")
    pull = {"metadata": {"name": "images", "namespace": namespace}, "type": "kubernetes.io/dockerconfigjson"}
    pull["data"] = pods.secret(world.kube, "kaito-hera", "registry", field="test")
    world.kube.create(clusters.SECRET, pull)
    spec = {
        "restartPolicy": "Never",
        "imagePullSecrets": [{"name": "images"}],
        "automountServiceAccountToken": False,
        "securityContext": operator["spec"]["template"]["spec"]["securityContext"],
        "containers": [
            {
                "name": "curl",
                "image": operator["spec"]["template"]["spec"]["containers"][0]["image"],
                "command": ["python3", "-c", program],
                "securityContext": operator["spec"]["template"]["spec"]["containers"][0]["securityContext"],
            }
        ],
    }
    world.kube.create(clusters.POD, {"metadata": {"name": "curl", "namespace": namespace}, "spec": spec})
    until(lambda: _phase(world, namespace, "curl") in {"Succeeded", "Failed"}, what="an answer in another pod")
    return world.kubectl("logs", "-n", namespace, "curl")


def _phase(world, namespace, name):
    return world.kube.get(clusters.POD, name, namespace)["status"]["phase"]


def _a_lost_deployment_comes_back(world, namespace):
    """A repair is a roll-out alone: the nodes are there."""
    pools = world.pools(namespace)
    world.kubectl("delete", "deployment", "-n", namespace, NAME)
    until(lambda: world.condition(namespace, NAME, "InferenceReady")["status"] == "False", what="a server that is gone")
    until(lambda: world.kube.get(clusters.DEPLOYMENT, NAME, namespace), what="a repair", seconds=150)
    flow = world.status(namespace, NAME)["workflow"]["name"]
    templates = world.kube.get(clusters.WORKFLOW, flow, "kaito-hera")["spec"]["templates"]
    assert {t["name"] for t in templates if "script" in t} == {"preflight", "roll-out"}
    assert world.pools(namespace) == pools
    world.await_condition(namespace, NAME, "WorkspaceReady")
