"""The pod's port: figures of the run for Prometheus, and KAITO's JSON about the machine, where KAITO has it.

`/metrics` answers whoever asks for text, as Prometheus does, with `kaito_hera_tuning_*`, and others with the JSON of
KAITO's metrics server; `/metrics?format=prometheus` and `?format=json` say it outright. `/health` answers as soon as
the run begins. One thread answers one request at a time: nobody who asks much can slow the training.
"""

import contextlib
import http.server
import json
import socket
import threading
import urllib.parse
from collections.abc import Iterator

from tuning import machine
from tuning.config import Progress
from tuning.report import log

PATIENCE_SECONDS = 2.0
"""For whoever connects and says nothing."""
_TEXT = "text/plain; version=0.0.4; charset=utf-8"
_PHASES = ("fetch", "load", "train", "push")
_GAUGES = {
    "step": "Optimizer steps done.",
    "max_steps": "Optimizer steps in all.",
    "epoch": "Passes over the data.",
    "loss": "Training loss of the last step.",
    "eval_loss": "Loss on the rows held out, when they were looked at last.",
    "learning_rate": "Learning rate of the last step.",
    "grad_norm": "Norm of the last step's gradient, before it is clipped.",
    "tokens_per_second": "Tokens trained on per second.",
    "eta_seconds": "Seconds of training that are left, estimated.",
    "resumed_from_step": "The step after which this attempt went on.",
}
_COUNTERS = {
    "tokens": "Tokens that this attempt has trained on.",
    "supervised_tokens": "Those of them that were learned from.",
}
_TAKEN = (*_GAUGES, *_COUNTERS, "gpu_memory_gib")


class Metrics:
    """What is known of the run; a listener of progress."""

    def __init__(self) -> None:
        self._known: dict[str, float] = {}
        self._phase = _PHASES[0]
        self._percent = 0

    def __call__(self, progress: Progress) -> None:
        """Take what is new; what a line does not say stays."""
        told = progress.model_dump(exclude_none=True)
        self._phase, self._percent = progress.phase, progress.percent
        self._known = self._known | {name: told[name] for name in _TAKEN if name in told}

    def text(self) -> str:
        """In Prometheus' text format."""
        known = self._known
        found = [_figure("progress_ratio", "gauge", "Of the whole run, from 0 to 1.", self._percent / 100)]
        found += [_figure(name, "gauge", what, known[name]) for name, what in _GAUGES.items() if name in known]
        found += [
            _figure(f"{name}_total", "counter", what, known[name]) for name, what in _COUNTERS.items() if name in known
        ]
        if "gpu_memory_gib" in known:
            most = "The most that training has held in the GPU's memory."
            found.append(_figure("gpu_memory_bytes", "gauge", most, round(known["gpu_memory_gib"] * 2**30)))
        head = _head("phase", "gauge", "1 for what is being done.")
        phases = [f'kaito_hera_tuning_phase{{phase="{phase}"}} {int(phase == self._phase)}\n' for phase in _PHASES]
        return "".join([*found, head, *phases])


@contextlib.contextmanager
def served(metrics: Metrics, port: int) -> Iterator[int]:
    """Answer on that port of all addresses meanwhile; yields the port. One that is taken is worth a warning only."""
    try:
        server = _Server(metrics, port)
    except OSError as error:
        log.warning("no figures on port %d (%s); training does not need them", port, error.strerror or error)
        yield 0
        return
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.5}, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


class _Server(http.server.HTTPServer):
    """Of both families of addresses where the machine has them."""

    def __init__(self, metrics: Metrics, port: int) -> None:
        self.metrics = metrics
        both = socket.has_dualstack_ipv6()
        self.address_family = socket.AF_INET6 if both else socket.AF_INET
        super().__init__(("::" if both else "0.0.0.0", port), _Handler)  # noqa: S104 - Prometheus is elsewhere

    def server_bind(self) -> None:
        """Without the base class's question for this machine's name, which may take long."""
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "tuning", self.server_address[1]

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: it is the client who has gone."""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server
    timeout = PATIENCE_SECONDS

    def do_GET(self) -> None:
        asked = urllib.parse.urlsplit(self.path)
        if asked.path == "/health":
            self._answer(200, "application/json", '{"status":"ok"}')
        elif asked.path != "/metrics":
            self._answer(404, "application/json", '{"detail":"Not Found"}')
        elif _wants_text(self.headers.get("Accept", ""), asked.query):
            self._answer(200, _TEXT, self.server.metrics.text())
        else:
            self._machine()

    def _machine(self) -> None:
        try:
            found = machine.look()
        except (OSError, ValueError) as error:
            self._answer(500, "application/json", json.dumps({"detail": str(error)}))  # as KAITO has it
            return
        self._answer(200, "application/json", json.dumps(found))

    def _answer(self, code: int, kind: str, text: str) -> None:
        body = text.encode()
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_words: object) -> None:
        """The log is the run's."""


def _wants_text(accept: str, query: str) -> bool:
    wanted = urllib.parse.parse_qs(query).get("format", [""])[-1]
    return wanted == "prometheus" if wanted else "text/plain" in accept or "openmetrics" in accept


def _figure(name: str, kind: str, what: str, value: float) -> str:
    return f"{_head(name, kind, what)}kaito_hera_tuning_{name} {value!r}\n"


def _head(name: str, kind: str, what: str) -> str:
    return f"# HELP kaito_hera_tuning_{name} {what}\n# TYPE kaito_hera_tuning_{name} {kind}\n"
