"""Annotations that KAITO's users set, each honoured, refused with its reason, or said to have no effect here."""

import dataclasses
from typing import Literal

SERVE = "kaito.sh/serve"
"""Ours. `"false"` on a tuning Workspace: push the adapter, give the nodes back, serve nothing."""
RETRY = "kaito.sh/retry"
"""Ours. Another value asks for another attempt where none would follow: what was wrong lay outside the Workspace."""
ENABLE_LB = "kaito.sh/enablelb"
"""`"True"`, spelled so: the Service is of type LoadBalancer."""
BYPASS = "kaito.sh/bypass-resource-checks"
"""Present, with whatever value: too little GPU memory is a warning, not a refusal."""
TRACKING = "kaito.sh/tracking-secret"
"""Ours. The Secret whose keys the tuning pod's trackers are spoken to with, see `tuning.tracking`."""
API_KEY = "kaito.sh/api-key-secret"
"""Ours. The Secret whose key API_KEY has what a preset's server wants to be asked with."""
CACHE = "kaito.sh/weights-cache"
"""Ours. The claim on which a preset's server keeps the model's files for its next start, and for others."""
IMAGE_FAMILY = "kaito.sh/node-image-family"
"""Operating system of new nodes."""
RUNTIME = "kaito.sh/runtime"
"""`vllm`: the server is vLLM's engine, where the platform team has its image."""

Effect = Literal["honoured", "no effect", "refused"]
_TRUTH = ("true", "false")


@dataclasses.dataclass(frozen=True)
class Annotation:
    """What one annotation of KAITO's means here."""

    key: str
    effect: Effect
    why: str
    """What it does, why it does nothing, or what to do instead."""
    values: tuple[str, ...] = ()
    """Allowed values in lower case; any when empty. Spaces around a value and the case of letters do not matter."""
    harmless: tuple[str, ...] = ()
    """Of a refused one: values that ask for nothing."""
    names: str = ""
    """What its value is the name of."""


KNOWN = (
    Annotation(SERVE, "honoured", "false: serve nothing after tuning", _TRUTH),
    Annotation(RETRY, "honoured", "another value starts another attempt"),
    Annotation(ENABLE_LB, "honoured", "True, spelled so: the Service is of type LoadBalancer", _TRUTH),
    Annotation(BYPASS, "honoured", "too little GPU memory is a warning"),
    Annotation(
        TRACKING,
        "honoured",
        "Secret with WANDB_API_KEY, MLFLOW_TRACKING_URI and the like, for report_to",
        names="Secret",
    ),
    Annotation(
        API_KEY,
        "honoured",
        "Secret with API_KEY, which the server wants to be asked with; it may change",
        names="Secret",
    ),
    Annotation(
        CACHE,
        "honoured",
        "claim that keeps the model's files for the next start; of ReadWriteMany for several replicas",
        names="PersistentVolumeClaim",
    ),
    Annotation(IMAGE_FAMILY, "honoured", "operating system of new nodes", ("ubuntu", "azurelinux")),
    Annotation(
        RUNTIME,
        "honoured",
        "vllm: vLLM serves, where the platform team has its image; else one engine serves /chat and the OpenAI API",
        ("transformers", "vllm"),
    ),
    Annotation("kaito.sh/disable-benchmark", "honoured", "no benchmark is ever run after loading"),
    Annotation("kaito.sh/run-benchmark", "no effect", "no benchmark is run after loading"),
    Annotation(
        "kaito.sh/performance-mode",
        "no effect",
        "it is an option of vLLM's",
        ("balanced", "interactivity", "throughput"),
    ),
    Annotation("kaito.sh/node-class-name", "no effect", "no NodeClass is used by the node providers here"),
    Annotation(
        "kaito.sh/use-local-weights",
        "refused",
        "it mounts a folder of the node's; name an image with the weights in preset.presetOptions.image",
        _TRUTH,
        harmless=("false",),
    ),
    *(
        Annotation(
            key,
            "refused",
            "weights are not streamed from a mirror here; name an image with the weights in preset.presetOptions.image",
            harmless=("false", "disabled"),
        )
        for key in (
            "kaito.sh/model-streaming",
            "kaito.sh/model-mirror-storage-class",
            "kaito.sh/streaming-service-account",
            "inference.kaito.sh/static-model-mirror",
            "inference.kaito.sh/stream-datarefs-url",
            "inference.kaito.sh/stream-identity-client-id",
            "inference.kaito.sh/stream-source-type",
        )
    ),
)
"""All of KAITO's, v0.0.1 to v0.12, and ours."""

OTHERS = ("kaito.sh/upgrade-start-time",)
"""What KAITO writes by itself: nobody has misspelt it."""

EXACT = {ENABLE_LB: "True"}
"""Those that KAITO honours in one spelling alone: what it left without effect must not open a Service to the world."""

EFFECTIVE = (SERVE, ENABLE_LB, BYPASS, IMAGE_FAMILY, TRACKING, API_KEY, CACHE, RUNTIME)
"""Those that change what is made: steps are told of them, and an edit of one counts as an edit."""

NAMING = tuple(annotation.key for annotation in KNOWN if annotation.names)
"""Those that ask for nothing while they are empty."""


_SPACES = "".join(map(chr, (*range(9, 14), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F)))
_SPACES += "\u205f\u3000"
_LOWER = {letter: letter + 32 for letter in range(ord("A"), ord("Z") + 1)}


def plain(value: str) -> str:
    """A value as it is compared: without spaces around it, in lower case, by the API server's idea of both."""
    return lower(value.strip(_SPACES))


def letters(key: str) -> str:
    """A key by which a slip in capitals, dashes or underscores is seen."""
    return lower(key).replace("-", "").replace("_", "")


def lower(text: str) -> str:
    """ASCII letters in lower case, others as they are."""
    return text.translate(_LOWER)
