"""Where data and adapters come from and go to: addresses, images, volumes."""

import json
from typing import Annotated, Any

import pydantic
from pydantic.alias_generators import to_camel

from kaito_hera.api.base import Free, Image, MaybeName, Model, Name, Rule, Spelled, Text

_LONGEST = 60_000
"""Characters that a Workflow's argument leaves for addresses: a process takes 128 KiB in one."""


class ClaimSource(Model):
    """A PersistentVolumeClaim in the Workspace's namespace."""

    claim_name: Name
    """Name of the claim."""
    read_only: bool | None = None
    """Mount it read-only."""


_SMALL = 8_192
"""Bytes of a volume's own fields: real ones have some hundred, and a Workspace travels as a process's argument."""


def _small(source: dict[str, Any] | None) -> dict[str, Any] | None:
    if source and (size := len(json.dumps(source))) > _SMALL:
        raise ValueError(f"the volume source is too large, {size:,} bytes of {_SMALL:,}: name an object that holds it")
    return source


Source = Annotated[Free | None, pydantic.AfterValidator(_small)]


class Volume(Model):
    """One kind of volume, as in a pod."""

    persistent_volume_claim: ClaimSource | None = None
    """A claim in the Workspace's namespace."""
    csi: Source = None
    """A volume of a CSI driver."""
    ephemeral: Source = None
    """A claim that lives as long as the pod."""
    nfs: Source = None
    """A share of an NFS server."""
    azure_file: Source = None
    """A share of Azure Files."""
    azure_disk: Source = None
    """A disk of Azure."""
    config_map: Source = None
    """A ConfigMap as files."""
    secret: Source = None
    """A Secret as files."""
    image: Source = None
    """An OCI image as files, where the cluster has image volumes."""
    empty_dir: Source = None
    """Refused: it is always empty, or goes with the pod."""
    host_path: Source = None
    """Refused: a folder of the node's is not a tenant's."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds that are given, in Kubernetes' words."""
        return tuple(to_camel(name) for name in type(self).model_fields if getattr(self, name) is not None)

    @property
    def label(self) -> str:
        """What messages and the names of adapters call it: `persistentVolumeClaim/NAME`, or its kind alone."""
        kind = next(iter(self.kinds), "")
        return f"{kind}/{self.persistent_volume_claim.claim_name}" if self.persistent_volume_claim else kind

    def pod_volume(self) -> dict[str, Any]:
        """As it stands in a pod, without its name."""
        return self.model_dump(by_alias=True, exclude_none=True)


_KINDS = tuple(to_camel(name) for name in Volume.model_fields)
_GIVEN = " + ".join(f"(has(self.{kind}) ? 1 : 0)" for kind in _KINDS)
Volume.rules = (
    Rule(
        f"{_GIVEN} == 1",
        "volumeSource: give exactly one kind of volume, as in a pod, for example persistentVolumeClaim",
        lambda volume: len(volume.kinds) == 1,
    ),
)


def _never(kinds: str, why: str) -> Rule:
    """Kinds of volume that make no sense at this place, a folder of the node's at none."""
    refused = ("hostPath", *kinds.split())
    given = " || ".join(f"has(self.volumeSource.{kind})" for kind in refused)
    others = ", ".join(kind for kind in _KINDS if kind not in refused)
    return Rule(
        f"!has(self.volumeSource) || !({given})",
        f"volumeSource: {why}, and a folder of the node's (hostPath) is never mounted; take one of {others}",
        lambda place: place.volume_source is None or set(refused).isdisjoint(place.volume_source.kinds),
    )


class Input(Model):
    """The data to learn from: exactly one of urls, volumeSource and image."""

    rules = (
        Rule(
            "(has(self.urls) && size(self.urls) > 0 ? 1 : 0) + (has(self.volumeSource) ? 1 : 0)"
            " + (has(self.image) && self.image != '' ? 1 : 0) == 1",
            "give exactly one of urls, volumeSource and image",
            lambda i: bool(i.urls) + (i.volume_source is not None) + bool(i.image) == 1,
        ),
        Rule(
            f"!has(self.urls) || self.urls.map(url, size(url)).sum() <= {_LONGEST}",
            f"urls have more than {_LONGEST} characters together: put the data into fewer files",
            lambda i: sum(len(url) for url in i.urls) <= _LONGEST,
        ),
        _never("emptyDir", "an emptyDir is always empty"),
    )

    name: Annotated[str, pydantic.StringConstraints(max_length=253)] | None = None
    """A name for the data; only for people."""
    urls: Annotated[tuple[Text, ...], pydantic.Field(max_length=64)] = ()
    """http(s) addresses; all are used.

    Of data files (parquet, Arrow, jsonl, json, csv; text may be packed by gzip, zstd, bzip2 or xz), or of whole data
    sets: https://huggingface.co/datasets/ORG/NAME, with ?config=, split= and revision= where they are needed.
    """
    volume_source: Volume | None = None
    """A volume with data files."""
    image: Image | None = None
    """An image with data files in /data."""
    image_pull_secrets: Annotated[tuple[Name, ...], pydantic.Field(max_length=10)] = ()
    """Secrets of type kubernetes.io/dockerconfigjson in the Workspace's namespace, for image."""


def _read_only(volume: Volume | None) -> bool:
    claim = volume and volume.persistent_volume_claim
    return bool(claim and claim.read_only)


class Output(Model):
    """Where the tuned adapter goes: exactly one of image and volumeSource."""

    rules = (
        Rule(
            "(has(self.volumeSource) ? 1 : 0) + (has(self.image) && self.image != '' ? 1 : 0) == 1",
            "give exactly one of image and volumeSource",
            lambda o: (o.volume_source is not None) + bool(o.image) == 1,
        ),
        Rule(
            "!has(self.image) || self.image == '' || (has(self.imagePushSecret) && self.imagePushSecret != '')",
            "image needs an imagePushSecret: the name of a Secret of type kubernetes.io/dockerconfigjson",
            lambda o: not o.image or bool(o.image_push_secret),
        ),
        _never(
            "configMap secret image emptyDir ephemeral",
            "configMap, secret and image cannot be written to, emptyDir and ephemeral go with the pod",
        ),
        Rule(
            "!has(self.volumeSource) || !has(self.volumeSource.persistentVolumeClaim)"
            " || !has(self.volumeSource.persistentVolumeClaim.readOnly)"
            " || !self.volumeSource.persistentVolumeClaim.readOnly",
            "volumeSource.persistentVolumeClaim.readOnly: the adapter is written to this volume; take readOnly out",
            lambda o: not _read_only(o.volume_source),
        ),
    )

    image: Image | None = None
    """Image reference with the tag to push (none: latest), for example myregistry.azurecr.io/my-adapter:0.0.1."""
    image_push_secret: MaybeName | None = None
    """Secret of type kubernetes.io/dockerconfigjson in the Workspace's namespace, with the right to push."""
    volume_source: Volume | None = None
    """A volume that takes the adapter's files: persistentVolumeClaim, csi, nfs, azureFile or azureDisk."""


class AdapterSource(Model):
    """Where an adapter comes from: exactly one of image and volumeSource."""

    rules = (
        Rule(
            "(has(self.volumeSource) ? 1 : 0) + (has(self.image) && self.image != '' ? 1 : 0) == 1",
            "give exactly one of image and volumeSource",
            lambda s: (s.volume_source is not None) + bool(s.image) == 1,
        ),
        _never("emptyDir", "an emptyDir is always empty"),
    )

    name: Annotated[
        str,
        pydantic.StringConstraints(min_length=1, max_length=253),
        Spelled(
            "[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?",
            "write letters, digits, - and . alone, with a letter or digit first and last",
        ),
    ]
    """Name of the adapter, unique in the Workspace; clients may ask for it as a model."""
    image: Image | None = None
    """Image with /data/adapter_config.json and /data/adapter_model.safetensors."""
    volume_source: Volume | None = None
    """A volume with adapter_config.json and adapter_model.safetensors at its top."""
    image_pull_secrets: Annotated[tuple[Name, ...], pydantic.Field(max_length=10)] = ()
    """Secrets of type kubernetes.io/dockerconfigjson in the Workspace's namespace."""
