"""The model that a Workspace names, as both images are told it: which, where its files are, with whose token.

`pinned` is the commit or digest that preflight found, or an earlier attempt's did; empty while neither has.
"""

from typing import Any

import presets
from artifacts.weights import config as weights
from kaito_hera import errors, findings, pods, runtimes
from kaito_hera.api import PresetOptions, Workspace
from kaito_hera.run import Run
from kaito_hera.settings import Settings

_BRANCH = "main"


def known(workspace: Workspace) -> presets.Preset | None:
    """The preset; None for a pod of the user's own, or a model of the hub that no file here describes.

    Raises presets.UnknownNameError.
    """
    hub = workspace.preset is None or presets.is_hub_id(workspace.preset_name)
    return None if hub else presets.preset(workspace.preset_name)


def name(workspace: Workspace) -> str:
    """Its name as presets have it, or on the hub."""
    found = known(workspace)
    return found.name if found else workspace.preset_name


def served_name(workspace: Workspace) -> str:
    """What clients call it: the preset's name, or the last part of the hub's, as KAITO does."""
    found = known(workspace)
    return found.name if found else workspace.preset_name.rpartition("/")[2]


def field(workspace: Workspace) -> str:
    """The Workspace's field that names the model."""
    return "tuning.preset" if workspace.tuning else "inference.preset"


def model(workspace: Workspace, pinned: str = "") -> weights.Model:
    """The model and where its files are."""
    found, asked, image = known(workspace), _options(workspace), _image(workspace)
    revision = found.hub_revision if found else _BRANCH
    if image and pinned:
        image = f"{_repository(image)}@{pinned}"
    return weights.Model(
        id=found.hub_id if found else workspace.preset_name,
        revision=pinned if pinned and not image else revision,
        image=image,
        field=field(workspace),
        secret=asked.model_access_secret or "",
        ask=floats(workspace) or bool(asked.model_access_secret) or (found is not None and found.access != "public"),
        known=found is not None,
    )


def image(workspace: Workspace, pinned: str = "") -> str:
    """The image with its files, where they come out of one."""
    return model(workspace, pinned).image if workspace.preset else ""


def floats(workspace: Workspace) -> bool:
    """Whether a look is needed to know which commit or digest it is: one and the same is kept from then on."""
    if workspace.preset is None:
        return False
    try:
        found = known(workspace)
    except presets.UnknownNameError:  # preflight says so
        return False
    return bool(_image(workspace)) or found is None or found.revision is None


def secrets(workspace: Workspace) -> tuple[tuple[str, str], ...]:
    """Docker Secrets for its image: the Workspace's field and the name in it."""
    if workspace.preset is None or not _image(workspace):
        return ()
    where = f"{field(workspace)}.presetOptions.imagePullSecrets"
    return tuple((f"{where}[{nth}]", name) for nth, name in enumerate(_options(workspace).image_pull_secrets))


def mounts(workspace: Workspace) -> tuple[pods.Mount, ...]:
    """The token as a file, for every pod that asks the hub. Pods start without it: they say better why they end."""
    secret = _options(workspace).model_access_secret if workspace.preset else None
    if not secret:
        return ()
    folder, name = str(weights.TOKEN.parent), weights.TOKEN.name
    items = [{"key": weights.TOKEN_KEY, "path": name}]
    return (pods.Mount(folder, "hub", {"secret": {"secretName": secret, "items": items, "optional": True}}),)


def env(workspace: Workspace, settings: Settings) -> tuple[dict[str, Any], ...]:
    """What the hub's client reads."""
    found = {
        "HF_ENDPOINT": settings.hf_endpoint,
        "HF_HUB_OFFLINE": "1" if settings.hf_offline else "",
        "HF_TOKEN_PATH": str(weights.TOKEN) if mounts(workspace) else "",
    }
    return tuple({"name": name, "value": value} for name, value in found.items() if value)


def pass_access(run: Run) -> None:
    """The token is there, and the hub may be asked if it has to be."""
    workspace = run.workspace
    if workspace.preset is None:
        return
    options = f"{field(workspace)}.presetOptions"
    if run.settings.hf_offline and not _image(workspace):
        raise errors.InvalidWorkspaceError(
            f"{options}.image: is missing; by the setting hfOffline the hub is not asked in this cluster: name an image"
            " that holds the model's files (`kaito-hera model push` makes one)"
        )
    if secret := _options(workspace).model_access_secret:
        where = f"{options}.modelAccessSecret"
        pods.token(run.cluster, workspace.metadata.namespace, secret, key=weights.TOKEN_KEY, field=where)


def judged(workspace: Workspace, settings: Settings, found: presets.Preset) -> None:
    """A model of the hub, now that its numbers are known, can be tuned and served as is asked."""
    where = f"{field(workspace)}.name"
    if workspace.tuning and not found.tunable:
        why = "; ".join(found.limits) or f"the layers of a {found.architecture} are not known here"
        raise errors.PresetNotTunableError(f"{where}: {found.name} cannot be tuned: {why}")
    findings.settle(runtimes.judged(workspace, settings, found))
    if workspace.serves and runtimes.of(workspace, settings) not in found.runtimes:
        why = "; ".join(found.limits) or f"the engine does not know a {found.architecture}"
        raise errors.PresetNotServableError(f"{where}: {found.name} cannot be served: {why}; take another model")


def _options(workspace: Workspace) -> PresetOptions:
    assert workspace.preset is not None
    return workspace.preset.options


def _image(workspace: Workspace) -> str:
    """The Workspace's, or the preset's own."""
    found = known(workspace)
    return _options(workspace).image or (found.image if found else None) or ""


def _repository(image: str) -> str:
    """The reference without tag and digest; a port is no tag."""
    head, slash, tail = image.partition("@")[0].rpartition("/")
    return head + slash + tail.partition(":")[0]
