"""Deaths that the link does not tell of: HAProxy's, and those of the two processes that hold Ray together.

Serve starts HAProxy again after half a minute in which nobody is answered, and goes on without Ray's processes until
something else breaks, which nobody mends then. Here the kernel tells at once, and the driver ends. Knows neither Ray
nor the replica.
"""

import os
import select
import threading
from collections.abc import Callable
from pathlib import Path

DAEMONS = ("gcs_server", "raylet")
"""Children of the driver's, by the names that the kernel has for them."""


def tell(haproxy: Path, lost: Callable[[str], None]) -> None:
    """Call `lost` with the name of the first that ends, from a thread of its own.

    `haproxy` is a pipe that every HAProxy holds open: over a reload there is always one.
    """
    children = {name: pid for pid, name in _children()}
    watched = {os.open(haproxy, os.O_RDONLY | os.O_NONBLOCK): "HAProxy"}
    poll = select.poll()
    for name in DAEMONS:
        if name not in children:
            lost(name)
            return
        watched[os.pidfd_open(children[name])] = name
    for each in watched:
        poll.register(each, select.POLLIN)

    def wait() -> None:
        [(first, _), *_] = poll.poll()
        lost(watched[first])

    threading.Thread(target=wait, name="deaths", daemon=True).start()


def _children() -> list[tuple[int, str]]:
    """The children of this process, with their names."""
    pids = [int(pid) for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()]
    return [(pid, Path(f"/proc/{pid}/comm").read_text().strip()) for pid in pids]
