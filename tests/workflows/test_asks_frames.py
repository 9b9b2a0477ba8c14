"""The pod that looks before a GPU is bought, and what a look takes."""

from artifacts import unpack
from kaito_hera.settings import Settings
from tests import making
from workflows.asks import frames


def test_a_look_fits_the_pod_that_looks_also_where_its_folder_is_memory():
    workspace = making.parsed(making.tuning())
    task = frames.check_task(workspace, Settings(), 1, args=("tuning", "validate"), mounts=(), env=(), annotations={})
    (container,) = task.template["spec"]["containers"]
    room = int(container["resources"]["limits"]["memory"].removesuffix("Gi")) * unpack.GiB
    python, tokenizer = 128 * unpack.MiB, 400 * unpack.MiB
    assert unpack.LOOK_STORED + unpack.LOOK_UNPACKED + python + tokenizer <= room
