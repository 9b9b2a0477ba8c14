"""The Workspace as users write it: the one source of the CRD, its documentation and what the code reads.

Both API versions, v1alpha1 and v1beta1, have this schema. The texts under the fields are what `kubectl explain` prints.
A rule over several fields stands beside them, once in CEL for the API server and once in Python.
"""

from kaito_hera.api.annotations import RETRY as RETRY_ANNOTATION
from kaito_hera.api.annotations import SERVE as SERVE_ANNOTATION
from kaito_hera.api.base import Model, Rule
from kaito_hera.api.inference import Adapter, Inference, Preset, PresetOptions
from kaito_hera.api.resource import LabelSelector, Resource
from kaito_hera.api.sources import AdapterSource, Input, Output, Volume
from kaito_hera.api.tuning import Checkpoint, Tuning
from kaito_hera.api.workspace import FINALIZER, GROUP, Metadata, Workspace

__all__ = [
    "FINALIZER",
    "GROUP",
    "RETRY_ANNOTATION",
    "SERVE_ANNOTATION",
    "Adapter",
    "AdapterSource",
    "Checkpoint",
    "Inference",
    "Input",
    "LabelSelector",
    "Metadata",
    "Model",
    "Output",
    "Preset",
    "PresetOptions",
    "Resource",
    "Rule",
    "Tuning",
    "Volume",
    "Workspace",
]
