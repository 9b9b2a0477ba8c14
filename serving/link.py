"""The line between the driver and the serving replica: one Unix socket, one JSON object a line.

The driver says `{"drain": seconds}`; the replica says `{"log": line}`, `{"failed": Failure}` and `{"drained": bool}`.
The kernel closes it when either side dies, however that happens, so it is also how each notices the other's death.
"""

import contextlib
import json
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self


class Link:
    """One end."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lines = connection.makefile("rb")
        self._lock = threading.RLock()  # a signal handler may send while a send is under way

    @classmethod
    def connect(cls, path: Path) -> Self:
        """The replica's end."""
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(str(path))
        except OSError:
            connection.close()
            raise
        return cls(connection)

    def send(self, **message: Any) -> None:
        """Say something; nothing happens if the other end is gone."""
        with self._lock, contextlib.suppress(OSError):
            self._connection.sendall(json.dumps(message).encode() + b"\n")

    def messages(self) -> Iterator[dict[str, Any]]:
        """What the other end says, until it is gone."""
        with contextlib.suppress(OSError, ValueError):
            for line in self._lines:
                yield json.loads(line)

    def close(self) -> None:
        """Hang up."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._lines.close()
        self._connection.close()


class Door:
    """Where the driver waits for its replica: one, once."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen(1)

    def accept(self, seconds: float) -> Link | None:
        """The replica's link, or None when it has not come in time. A second replica finds the door closed."""
        self._socket.settimeout(seconds)
        with self._socket, contextlib.suppress(TimeoutError):
            connection, _ = self._socket.accept()
            connection.settimeout(None)
            return Link(connection)
        return None


class LinkHandler(logging.Handler):
    """Sends the replica's log to the driver, whose standard output is the pod's log."""

    def __init__(self, link: Link) -> None:
        super().__init__()
        self._link = link

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record."""
        self._link.send(log=self.format(record))


def obey(link: Link, drain: Callable[[float], None]) -> None:
    """In the replica: listen in a thread of its own, and end with the driver."""

    def listen() -> None:
        for message in link.messages():
            if "drain" in message:
                drain(float(message["drain"]))
        os._exit(1)  # the driver is gone: nobody would ever end this process

    threading.Thread(target=listen, name="link", daemon=True).start()
