"""Facts: the models that a Workspace may name (one YAML each in models/), the GPU sizes, and what fits where.

Pure data and arithmetic; everything else may import it, and it imports nothing of ours.
"""

from presets.catalogue import Presets, UnknownNameError, batched, preset, presets, region, size, sizes
from presets.facts import Chat, Preset, Shape, Size
from presets.hub import UnservableError, from_folder, from_hub, is_hub_id, shape
from presets.splitting import shares, splits

__all__ = [
    "Chat",
    "Preset",
    "Presets",
    "Shape",
    "Size",
    "UnknownNameError",
    "UnservableError",
    "batched",
    "from_folder",
    "from_hub",
    "is_hub_id",
    "preset",
    "presets",
    "region",
    "shape",
    "shares",
    "size",
    "sizes",
    "splits",
]
