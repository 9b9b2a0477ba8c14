"""What the platform team sets: one key per setting in the ConfigMap `kaito-hera-settings`, read as files of a folder.

The values travel into each Workflow as a parameter, so a run keeps the settings that it began with.
"""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pydantic
from pydantic.alias_generators import to_camel

from artifacts import plain_yaml
from artifacts.addresses import Ranges
from presets.kernels import PINNED, Kernels

CONFIG_MAP = "kaito-hera-settings"
FOLDER = Path("/etc/kaito-hera/settings")


def _yaml(value: Any) -> Any:
    return plain_yaml.config(value) if isinstance(value, str) else value


Yaml = pydantic.BeforeValidator(_yaml)
"""Of a setting with a structure of its own; all others are text as it stands."""


NO_AZURE = "is missing, nodeProvider aks needs it: tenantId, clientId and the cluster's place"


class Azure(pydantic.BaseModel):
    """The AKS cluster whose agent pools are made (provider aks)."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)

    tenant_id: str
    client_id: str
    """Of the managed identity that trusts the service account `kaito-hera-steps`."""
    subscription_id: str
    resource_group: str
    cluster_name: str
    location: str
    cloud: Literal["AzureCloud", "AzureUSGovernment", "AzureChinaCloud"] = "AzureCloud"
    """As `az cloud list` names it; decides where to log in and whom to ask."""


class Settings(pydantic.BaseModel):
    """All settings; a key that is not here is an error, so that a slip is not silence."""

    model_config = pydantic.ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True, use_attribute_docstrings=True
    )

    namespace: str = "kaito-hera"
    """Where the operator and its Workflows live."""
    registry: str = "ghcr.io/kaito-hera"
    """Registry and path of the three images kaito-hera-operator, -tuning and -serving."""
    version: str = "latest"
    """Tag of the three images."""
    vllm_image: str = ""
    """The image serving-vllm, for Workspaces annotated kaito.sh/runtime: vllm; empty: there is none, and the engine
    here serves them."""
    pull_secret: str = ""
    """Secret (dockerconfigjson) in the operator's namespace that may pull the images; copied where pods need it."""
    ca_bundle: str = ""
    """ConfigMap in the operator's namespace whose ca.crt replaces the system's certificate authorities in all pods."""
    node_provider: Literal["aks", "byo"] = "byo"
    """Who makes GPU nodes: aks makes AKS agent pools, byo uses the nodes that are there."""
    azure: Annotated[Azure | None, Yaml] = None
    """Needed by provider aks."""
    kernels: Annotated[Kernels, Yaml] = PINNED
    """Which GPUs and drivers the images tuning and serving can use: `make install` writes what `make images` found."""
    gpu_capability_check: Literal["refuse", "warn"] = "refuse"
    """What to do with a GPU size or node that the images cannot use, by their `kernels`.

    With warn the images also work on the CPU of a node whose GPU they cannot use; with refuse they end there.
    """
    retired_sizes: Literal["refuse", "warn"] = "warn"
    """What to do with a GPU size that the cloud has retired: it may be left over somewhere."""
    allowed_private_cidrs: Annotated[Ranges, Yaml] = pydantic.Field((), alias="allowedPrivateCIDRs")
    """Private ranges that data sets may be fetched from."""
    hf_endpoint: Annotated[str, pydantic.StringConstraints(pattern=r"^(https?://[^\s/]+(/[^\s]*)?)?$")] = ""
    """Address of the Hugging Face hub that pods ask for models, for example a mirror's; default: the public one."""
    image_volumes: Literal["never", "where-possible"] = "never"
    """Whether the kubelet mounts a server's model out of an image, instead of the server fetching it.

    It keeps images on the node for pods to come, and has its own registries, mirrors and certificates. where-possible:
    where API server, nodes and Pod Security have image volumes.
    """
    hf_offline: bool = False
    """The hub is never asked: models come from images only (presetOptions.image)."""
    argo_url: str = ""
    """Address of the Argo UI, for links in status."""
    argo_instance_id: str = pydantic.Field("", alias="argoInstanceID")
    """instanceID of the Argo controller that is to run our Workflows."""
    argo_timeout_seconds: Annotated[int, pydantic.Field(ge=5)] = 120
    """How long Argo may take to start a Workflow before status says so and a deletion goes on without Argo."""
    node_timeout_seconds: Annotated[int, pydantic.Field(ge=60)] = 2400
    """How long nodes may take from the order to usable GPUs."""
    node_steady_seconds: Annotated[int, pydantic.Field(ge=0)] = 10
    """How long nodes must stay usable before work starts on them."""
    server_timeout_seconds: Annotated[int, pydantic.Field(ge=60)] = 2400
    """How long a new model server may take to answer, beside the time for its files."""
    weights_megabytes_per_second: Annotated[float, pydantic.Field(gt=0)] = 50
    """At what rate servers fetch a model's files at the least, as their logs have measured it.

    The time for a model that is described here comes on top of serverTimeoutSeconds; its size is not known of others.
    """
    start_timeout_seconds: Annotated[int, pydantic.Field(ge=60)] = 900
    """How long a tuning Job's pod may wait for one and the same thing, such as a GPU or its image, on paid nodes."""
    tuning_timeout_seconds: Annotated[int, pydantic.Field(ge=60)] = 259200
    """How long a tuning Job may take."""
    tuning_scratch: Annotated[str, pydantic.StringConstraints(pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$")] = ""
    """StorageClass of volumes for what is trained until its registry has it, so that no GPU node waits for a registry.

    Of volumes that outlive their node and can be attached where pods without GPUs run, in each zone that has GPU nodes.
    Default: none, a finished adapter waits on its node.
    """
    push_timeout_seconds: Annotated[int, pydantic.Field(ge=60)] = 7200
    """How long a finished adapter may wait for a registry or volume that does not take it, on paid nodes but for a
    registry with tuningScratch."""

    @classmethod
    def load(cls, folder: Path = FOLDER) -> Self:
        """Read a mounted ConfigMap, a file per key; raises pydantic.ValidationError."""
        files = [file for file in folder.iterdir() if file.is_file() and not file.name.startswith(".")]
        return cls.of({file.name: file.read_text(encoding="utf-8") for file in files})

    @classmethod
    def of(cls, data: Mapping[str, str]) -> Self:
        """Read a ConfigMap's data; raises pydantic.ValidationError."""
        return cls.model_validate({key: text.strip() for key, text in data.items()})

    @property
    def region(self) -> str | None:
        """Where nodes are made, as prices name it; None where none are."""
        return self.azure.location.replace(" ", "").lower() if self.azure else None

    def image(self, role: Literal["operator", "tuning", "serving"]) -> str:
        """The image of one role."""
        return f"{self.registry}/kaito-hera-{role}:{self.version}"

    def dump(self) -> str:
        """JSON without defaults: what a Workflow carries."""
        return self.model_dump_json(by_alias=True, exclude_defaults=True)


def problem(cause: pydantic.ValidationError) -> str:
    """The first thing that is wrong with settings: which one, the value seen, and the way out where there is a name."""
    first = cause.errors(include_url=False)[0]
    *within, last = (str(part) for part in first["loc"])
    name = ".".join((*within, last))
    if first["type"] != "extra_forbidden":
        return f"setting {name}: {str(first['input'])[:60]!r}: {first['msg']}"
    nested: dict[str, type[pydantic.BaseModel]] = {"azure": Azure, "kernels": Kernels}
    among = nested.get(within[0], Settings) if within else Settings
    names = [field.alias or key for key, field in among.model_fields.items()]
    close = difflib.get_close_matches(last, names, 1)
    hint = f"did you mean {'.'.join((*within, close[0]))}?" if close else f"take it out; there are {', '.join(names)}"
    return f"setting {name}: is unknown; {hint}"
