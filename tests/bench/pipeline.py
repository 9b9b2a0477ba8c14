"""How long a Workspace takes from `kubectl apply` to its first answer, and how much of that is ours.

    make bench-pipeline

Overhead is the whole less what the world needs: node boot, steady time, image pulls, training, server start with its
weights, and for each step what an empty Argo step costs, measured in the same run. The last line is one JSON object.
"""

import json
import sys
import time

from kaito_hera import cluster as clusters
from kaito_hera.pods import USER
from tests.bench import recorder
from tests.e2e.world import OPERATOR, World, until

EMPTY_STEPS = 5
POLL = """
import sys, time, urllib.request as r
while True:
    try:
        asked = r.Request(sys.argv[1], b'{"prompt": "hi", "generate_kwargs": {"max_new_tokens": 4}}',
                          {"Content-Type": "application/json"})
        r.urlopen(asked, timeout=10).read()
        print(time.time()); break
    except OSError:
        time.sleep(0.1)
"""


def main(name):
    world = World(name)
    empty = measure_empty_step(world)
    serve, serve_rows = measure(world, "inference-phi-3", steps=4, empty=empty)
    tune, tune_rows = measure(world, "fine-tuning-phi-3", steps=5, empty=empty)
    show("serve", serve_rows)
    show("tune, then serve", tune_rows)
    figures = {
        "serve_total_s": serve[0],
        "serve_overhead_s": serve[1],
        "tune_total_s": tune[0],
        "tune_overhead_s": tune[1],
        "empty_step_s": empty,
    }
    print(json.dumps({key: round(value, 2) for key, value in figures.items()}))


def measure(world, example, *, steps, empty):
    """(total, overhead) and the rows of the table."""
    namespace = world.new_namespace()
    manifest = world.manifest(example, image=namespace)
    began = time.time()
    name = world.apply(namespace, manifest)
    watch = recorder.Recorder(world.kube, world.workspace(namespace, name))
    answered = first_answer(world, namespace, name)
    world.await_condition(namespace, name, "WorkspaceReady")
    watch.stop()
    rows = [("total: apply to first answer", answered - began)]
    rows += subtrahends(world, namespace, watch, began)
    rows.append((f"{steps} empty Argo steps of {empty:.1f} s", steps * empty))
    overhead = rows[0][1] - sum(value for _, value in rows[1:])
    world.kubectl("delete", "workspaces", "-n", namespace, "--all", "--timeout=180s")
    world.kubectl("delete", "namespace", namespace, "--wait=false")
    return (rows[0][1], overhead), [*rows, ("overhead: ours", overhead)]


def subtrahends(world, namespace, watch, began):
    """What the world needs, each from timestamps."""
    ordered = accepted(world, began)
    usable = max(watch.usable.values())
    started, ready, _ = recorder.container(world.kube, namespace, "serving")
    found = [
        ("node boot: order to usable GPUs", usable - ordered),
        ("steady time", 10.0),
        ("image pulls", recorder.pulls(world.kube, namespace)),
    ]
    if world.kube.items(clusters.POD, namespace, labels="kaito.sh/role=tuning"):
        job_started, _, job_finished = recorder.container(world.kube, namespace, "tuning")
        found.append(("training", job_finished - job_started))
    found.append(("server start and weights", ready - started))
    return found


def accepted(world, began):
    """When Azure accepted the order."""
    lines = (world.machine.state / "azure/requests.jsonl").read_text().splitlines()
    puts = [json.loads(line) for line in lines if '"PUT"' in line]
    return next(put["time"] for put in puts if put["time"] > began and put["status"] == 201)


def first_answer(world, namespace, name):
    """Asks from inside the cluster's network as soon as there is a Service."""
    service = until(lambda: world.kube.get(clusters.SERVICE, name, namespace), what="a Service", seconds=600, pause=0.2)
    address = service["spec"]["clusterIP"]
    return float(world.inside(sys.executable, "-c", POLL, f"http://{address}/chat"))


def measure_empty_step(world):
    """Seconds that Argo needs for a step that does nothing, in the operator's image and frame."""
    operator = world.kube.get(clusters.DEPLOYMENT, "kaito-hera", OPERATOR)["spec"]["template"]["spec"]
    hardened = operator["containers"][0]["securityContext"]
    template = {
        "name": "nothing",
        "container": {
            "image": operator["containers"][0]["image"],
            "command": ["python3", "-c", "pass"],
            "securityContext": hardened,
        },
    }
    executor = {
        "initContainers": [{"name": "init", "securityContext": hardened}],
        "containers": [{"name": "wait", "securityContext": hardened}],
    }
    steps = [[{"name": f"nothing-{number}", "template": "nothing"}] for number in range(EMPTY_STEPS)]
    flow = world.kube.create(
        clusters.WORKFLOW,
        {
            "apiVersion": clusters.WORKFLOW.api_version,
            "kind": "Workflow",
            "metadata": {"generateName": "empty-", "namespace": OPERATOR},
            "spec": {
                "entrypoint": "main",
                "serviceAccountName": "kaito-hera-steps",
                "imagePullSecrets": operator["imagePullSecrets"],
                "securityContext": {**operator["securityContext"], "fsGroup": USER},
                "podSpecPatch": json.dumps(executor),
                "templates": [{"name": "main", "steps": steps}, template],
            },
        },
    )
    name = flow["metadata"]["name"]
    done = until(lambda: _ended(world, name), what="an empty Workflow")
    world.kube.delete(clusters.WORKFLOW, name, OPERATOR)
    whole = recorder.seconds(done["status"]["finishedAt"]) - recorder.seconds(done["status"]["startedAt"])
    return whole / EMPTY_STEPS


def _ended(world, name):
    found = world.kube.get(clusters.WORKFLOW, name, OPERATOR)
    phase = found.get("status", {}).get("phase")
    assert phase not in {"Failed", "Error"}, found["status"]
    return found if phase == "Succeeded" else None


def show(title, rows):
    print(f"\n{title}")
    for what, value in rows:
        print(f"  {what:<40} {value:8.1f} s")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "demo")
