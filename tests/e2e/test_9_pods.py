"""Of every pod that this run has seen: none has privileges, runs as root or writes to its root file system."""

from kaito_hera import names

ARGO = {"argo", "kube-system"}
ROLES = {"step", "check", "tuning", "serving"}


def test_every_pod_was_hardened(world, namespace, every_pod):
    if not _roles(every_pod) >= ROLES:  # no other test has run
        name = world.apply(namespace, world.manifest("fine-tuning-phi-3", image=namespace))
        world.await_condition(namespace, name, "WorkspaceReady")
    assert _roles(every_pod) >= ROLES
    ours = {key: pod for key, pod in every_pod.items() if key[0] not in ARGO}
    assert {key: found for key, pod in ours.items() if (found := _softness(pod["spec"]))} == {}


def _roles(pods):
    return {pod["metadata"].get("labels", {}).get(names.ROLE) for pod in list(pods.values())}


def _softness(spec):
    found = []
    whole = spec.get("securityContext", {})
    if not whole.get("runAsNonRoot") or whole.get("runAsUser") == 0:
        found.append("may be root")
    if whole.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        found.append("no seccomp")
    if any(spec.get(field) for field in ("hostNetwork", "hostPID", "hostIPC")):
        found.append("the host's namespaces")
    if any("hostPath" in volume for volume in spec.get("volumes", [])):
        found.append("the host's files")
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        own = container.get("securityContext", {})
        if own.get("privileged") or own.get("allowPrivilegeEscalation") is not False:
            found.append(f"{container['name']}: privileges")
        if not own.get("readOnlyRootFilesystem"):
            found.append(f"{container['name']}: writable root")
        if own.get("capabilities", {}).get("drop") != ["ALL"]:
            found.append(f"{container['name']}: capabilities")
    return found
