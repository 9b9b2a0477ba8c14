"""The whole simulated Azure behind one listener: Entra, ARM and the fleet over one state folder."""

import json
import threading
import time
from collections.abc import Collection
from pathlib import Path

from tests.cluster.simulators import web
from tests.cluster.simulators.azure.account import HOSTS, Account
from tests.cluster.simulators.azure.agent_pools import AgentPools
from tests.cluster.simulators.azure.arm import Arm
from tests.cluster.simulators.azure.entra import Entra, Tokens, Verifier
from tests.cluster.simulators.azure.fleet import Fleet
from tests.cluster.simulators.azure.machines import Machines
from tests.cluster.simulators.azure.scenarios import Script
from tests.cluster.simulators.azure.store import Store


class Cloud:
    """Everything, wired; `start` goes on with what a former process accepted."""

    def __init__(
        self,
        state: Path,
        account: Account,
        machines: Machines,
        *,
        verifier: Verifier,
        subjects: Collection[str],
        token_seconds: float = 3600.0,
        join_seconds: float = 600.0,
    ) -> None:
        state.mkdir(parents=True, exist_ok=True)
        store = Store(state / "pools")
        tokens = Tokens(state / "token-secret", token_seconds)
        self._fleet = Fleet(store, machines, account, join_seconds=join_seconds)
        self._entra = Entra(account, verifier, subjects, tokens)
        self._arm = Arm(account, store, AgentPools(account, store, self._fleet), tokens, Script(state))
        self._journal = state / "requests.jsonl"
        self._writing = threading.Lock()

    def start(self) -> None:
        self._fleet.resume()

    def stop(self) -> None:
        self._fleet.stop()

    def handle(self, request: web.Request) -> web.Answer:
        if request.segments == ("healthz",):
            return web.Answer(200, b"ok\n", {"Content-Type": "text/plain"})
        if self._service(request) == "entra":
            return self._entra.handle(request)
        return self._arm.handle(request)

    def log(self, request: web.Request, status: int, seconds: float) -> None:
        """A line of JSON for each request, for tests to read."""
        if request.segments == ("healthz",):
            return
        line = {
            "time": time.time(),
            "method": request.method,
            "host": request.host,
            "path": request.target,
            "status": status,
            "seconds": round(seconds, 4),
        }
        with self._writing, self._journal.open("a", encoding="utf-8") as journal:
            journal.write(json.dumps(line) + "\n")

    def _service(self, request: web.Request) -> str:
        """By name; a client that came by another name, as on loopback, shows by its path what it wants."""
        by_path = "arm" if request.segments[:1] == ("subscriptions",) else "entra"
        return HOSTS.get(request.host.partition(":")[0].lower(), by_path)
