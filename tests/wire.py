"""A wire between a client and a server on loopback, which a test may cut: a TCP relay, or an HTTPS proxy."""

import contextlib
import socket
import threading


class Wire:
    """Leads every connection to `port`. As a proxy it answers CONNECT first, whatever the name: all lead to `port`."""

    def __init__(self, port, *, proxy=False):
        self._target = port
        self._proxy = proxy
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._open = set()
        self._lock = threading.Lock()
        self.port = self._listener.getsockname()[1]
        self.whole = True
        self.calls = 0

    def __enter__(self):
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.whole = False
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        self.cut()

    def cut(self):
        """End the connections that are open; new ones are led on only while the wire is `whole`."""
        with self._lock:
            for end in self._open:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def _serve(self):
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self.calls += 1
            threading.Thread(target=self._lead, args=(near,), daemon=True).start()

    def _lead(self, near):
        with near, contextlib.suppress(OSError):
            if not self.whole:
                return
            if self._proxy:
                _answer_connect(near)
            with socket.create_connection(("127.0.0.1", self._target)) as far:
                with self._lock:
                    self._open |= {near, far}
                back = threading.Thread(target=_copy, args=(far, near), daemon=True)
                back.start()
                _copy(near, far)
                back.join()
                with self._lock:
                    self._open -= {near, far}


def _answer_connect(near):
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        more = near.recv(1)  # not a byte of what comes after the head
        if not more:
            raise ConnectionError("no CONNECT came")
        head += more
    near.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")


def _copy(source, target):
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
