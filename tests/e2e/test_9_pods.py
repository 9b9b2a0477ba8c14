"""Of every pod that this run has seen: none has privileges, runs as root or writes to its root file system."""

ARGO = {"argo", "kube-system"}


def test_every_pod_was_hardened(every_pod):
    ours = {key: pod for key, pod in every_pod.items() if key[0] not in ARGO}
    assert len(ours) > 10, "a whole run has more pods than that"
    roles = {pod["metadata"].get("labels", {}).get("kaito.sh/role") for pod in ours.values()}
    assert {"step", "check", "tuning", "serving"} <= roles
    assert {key: found for key, pod in ours.items() if (found := _softness(pod["spec"]))} == {}


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
