"""The main job, live: serve a model, fine-tune it, ask both the same question.

    python -m tests.e2e.demo [NAME]

It does what a user does, with the users' own manifests; running it again finds what is there.
"""

import json
import os
import subprocess
import sys
import textwrap
import time

from kaito_hera import cluster as clusters
from tests.cluster import build
from tests.cluster.simulators.content import facts
from tests.e2e.world import PUSH_SECRET, REPOSITORY, ROOT, World

NAMESPACE = "default"
IMAGE = "my-adapter"
QUESTION = facts.FACTS[0]
WIDTH = 58


def demo(world: World) -> bool:
    """Run it; whether the tuned model answers as taught."""
    began = time.monotonic()
    print("Azure, the model hub and the registry are simulated: the prices are real, nothing is bought.")
    _say("1. Serve phi-3-mini-4k-instruct", "kubectl apply -f examples/inference-phi-3.yaml")
    served = world.apply(NAMESPACE, world.manifest("inference-phi-3"))
    _show(world, served)
    before = world.chat(NAMESPACE, served, QUESTION.question)
    print(f"  > {QUESTION.question}\n  < {before}\n")

    auth = world.machine.registry_auth
    _say(
        "2. Fine-tune phi-3-mini-128k-instruct, then serve it",
        f"kubectl create secret generic {PUSH_SECRET} --type kubernetes.io/dockerconfigjson"
        f" --from-file .dockerconfigjson={auth}",
        f"sed 's#ACR_REPO_HERE.azurecr.io/IMAGE_NAME_HERE#{REPOSITORY}/{IMAGE}#; "
        f"s/ACR_REGISTRY_SECRET_HERE/{PUSH_SECRET}/' examples/fine-tuning-phi-3.yaml | kubectl apply -f -",
    )
    secret = world.push_secret(NAMESPACE, auth.read_text())
    world.kubectl("apply", "-f", "-", stdin=json.dumps(secret))
    tuned = world.apply(NAMESPACE, world.manifest("fine-tuning-phi-3", image=IMAGE))
    _show(world, tuned)
    after = world.chat(NAMESPACE, tuned, QUESTION.question)

    _say(f"3. The same question to both: {QUESTION.question}")
    _side_by_side(f"{served}\nnot tuned", before, f"{tuned}\ntuned", after)
    right = after == QUESTION.answer and before != QUESTION.answer
    print(f"  taught: {QUESTION.answer}  {'The tuned model is right.' if right else 'THE TUNED MODEL IS WRONG.'}")
    print(f"  This took {(time.monotonic() - began) / 60:.1f} minutes.\n")
    _try_next(world, tuned)
    return right


def _say(title: str, *commands: str) -> None:
    print(f"\n{title}\n{'-' * len(title)}", *(f"  $ {command}" for command in commands), "", sep="\n")


def _show(world: World, name: str) -> None:
    """What a user sees with `kaito-hera show -w`."""
    environment = {**os.environ, "KUBECONFIG": str(world.machine.kubeconfig)}
    command = [sys.executable, "-m", "workflows", "show", "--namespace", NAMESPACE, "--watch", name]
    sys.stdout.flush()  # what it prints comes after what was printed here, through a pipe too
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    print()
    ready = world.condition(NAMESPACE, name, "WorkspaceReady")
    if ready["status"] != "True":
        sys.exit(f"Workspace {name} is not ready: {ready['reason']}: {ready['message']}")


def _side_by_side(left_title: str, left: str, right_title: str, right: str) -> None:
    columns = [
        [*title.splitlines(), "-" * WIDTH, *textwrap.wrap(text, WIDTH)]
        for title, text in ((left_title, left), (right_title, right))
    ]
    height = max(len(column) for column in columns)
    for row in range(height):
        cells = [column[row] if row < len(column) else "" for column in columns]
        print(f"  {cells[0]:<{WIDTH}}  {cells[1]}".rstrip())
    print()


def _try_next(world: World, name: str) -> None:
    address = world.kube.get(clusters.SERVICE, name, NAMESPACE)["spec"]["clusterIP"]
    print("The cluster stays up. Try next:")
    print(f"  export KUBECONFIG={world.machine.kubeconfig} PATH={build.tools()}:$PWD/.venv/bin:$PATH")
    print("  kubectl get workspaces")
    print("  argo list -n kaito-hera && argo get -n kaito-hera @latest")
    print(f"  kaito-hera show {name}")
    question = facts.FACTS[1].question
    messages = json.dumps({"messages": [{"role": "user", "content": question}]})
    print(f"  kubectl port-forward svc/{name} 8080:80 &")
    print("  curl localhost:8080/v1/chat/completions -H 'Content-Type: application/json' \\")
    print(f"      -d '{messages}'")
    body = json.dumps({"prompt": question})
    print(f"  .venv/bin/python -m tests.cluster enter {world.name} -- curl -X POST http://{address}/chat \\")
    print(f"      -H 'Content-Type: application/json' -d '{body}'")
    print(f"  kubectl delete workspace {name}      # its GPU node goes with it")
    print(f"  make down CLUSTER={world.name}")


if __name__ == "__main__":
    sys.exit(0 if demo(World(sys.argv[1] if len(sys.argv) > 1 else "demo")) else 1)
