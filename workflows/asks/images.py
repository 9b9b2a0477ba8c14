"""A server whose model the kubelet mounts out of its image, instead of the server fetching it."""

import dataclasses

from kaito_hera import cluster as clusters
from kaito_hera import imagevolumes, nodes, pods
from kaito_hera.rollout import Server
from kaito_hera.run import Run
from serving import config as serving
from workflows.asks import models


def mounted(run: Run, server: Server | None, placement: nodes.Placement) -> Server | None:
    """The server so, where the settings wish for it and namespace and nodes can; else as it is."""
    workspace, image = run.workspace, models.image(run.workspace, run.pinned)
    if server is None or not image or run.settings.image_volumes == "never":
        return server
    found = run.cluster.items(clusters.NODE, labels=clusters.selector(placement.labels))
    ours = [node for node in found if placement.allows(node)]
    if not imagevolumes.usable(run.cluster, workspace.metadata.namespace, ours):
        return server
    # Always: what another tenant's password has brought to the node is not this one's to read.
    source = {"image": {"reference": image, "pullPolicy": "Always"}}
    return dataclasses.replace(
        server,
        mounted=(pods.Mount(str(serving.MODEL), "model", source),),
        env=(*server.env, {"name": "MODEL_FOLDER", "value": str(serving.MODEL)}),
    )
