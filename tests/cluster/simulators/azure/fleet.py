"""Does what pools ask for: a thread per pool takes one step after another until nothing is left to do.

One thread a pool, so a machine is never booted and removed at once. After a restart `resume` goes on with whatever was
accepted: every step may be repeated. It knows nothing of HTTP.
"""

import threading
import time
import traceback
from typing import Literal

from tests.cluster.simulators.azure import pools, sizes
from tests.cluster.simulators.azure.account import Account
from tests.cluster.simulators.azure.machines import Machine, Machines
from tests.cluster.simulators.azure.pools import Pool, Step
from tests.cluster.simulators.azure.store import Store

LOOK = 0.3  # seconds between looks at a machine that boots
RETRY = 1.0  # seconds until what failed is tried again


class Fleet:
    """The machines of all pools in a store."""

    def __init__(self, store: Store, machines: Machines, account: Account, *, join_seconds: float = 600.0) -> None:
        self._store, self._machines, self._account = store, machines, account
        self._join_seconds = join_seconds
        self._threads: dict[str, threading.Thread] = {}
        self._stopped = False

    def resume(self) -> None:
        """Go on where the last process stopped."""
        for name in list(self._store.pools):
            self.tend(name)

    def tend(self, name: str) -> None:
        """See to it that somebody works on this pool."""
        with self._store.changed:
            if name not in self._threads:
                thread = threading.Thread(target=self._tend, args=(name,), name=f"pool-{name}", daemon=True)
                self._threads[name] = thread
                thread.start()

    def stop(self) -> None:
        """Finish the steps that are being taken and no more."""
        with self._store.changed:
            self._stopped = True
            self._store.changed.notify_all()
            threads = list(self._threads.values())
        for thread in threads:
            thread.join()

    def _tend(self, name: str) -> None:
        while (step := self._take(name)) is not None:
            try:
                self._do(name, step)
            except Exception as error:
                traceback.print_exc()
                self._failed(name, step, error)

    def _take(self, name: str) -> Step | None:
        with self._store.changed:
            step = None if self._stopped else pools.next_step(self._store.pools[name], time.time())
            if step is None:
                # Under the lock, so that whoever begins an operation now finds no thread and starts one.
                del self._threads[name]
            return step

    def _do(self, name: str, step: Step) -> None:
        match step.verb:
            case "wait":
                self._pause(step.until - time.time())
            case "add":
                self._add(name)
            case "boot":
                self._machines.boot(self._ordered(name, step.machine))
                self._mark(name, step.machine, "booted")
            case "await":
                self._await(name, step.machine)
            case "relabel":
                self._relabel(name, step.machine)
            case "remove":
                self._machines.remove(step.machine)
                with self._store.changing(name) as pool:
                    del pool.machines[step.machine]
            case "finish" | "fail":
                self._end(name, step)

    def _pause(self, seconds: float) -> None:
        with self._store.changed:
            if not self._stopped:
                self._store.changed.wait(max(0.0, seconds))

    def _add(self, name: str) -> None:
        with self._store.changing(name) as pool:
            instance = pool.next_instance
            pool.next_instance += 1
            labels = dict(pool.properties.get("nodeLabels") or {})
            pool.machines[self._account.node(name, instance)] = pools.Machine(instance, labels=labels)

    def _ordered(self, name: str, machine: str) -> Machine:
        with self._store.changed:
            pool = self._store.pools[name]
            return order(pool, pool.machines[machine], self._account)

    def _mark(self, name: str, machine: str, state: Literal["booted", "joined"]) -> None:
        with self._store.changing(name) as pool:
            pool.machines[machine].state = state

    def _await(self, name: str, machine: str) -> None:
        if self._machines.joined(machine):
            self._mark(name, machine, "joined")
            return
        operation = self._store.pools[name].operation
        if operation is not None and time.time() > max(operation.started, operation.begins) + self._join_seconds:
            raise TimeoutError(f"node {machine} did not become Ready within {self._join_seconds:.0f} s")
        self._pause(LOOK)

    def _relabel(self, name: str, machine: str) -> None:
        with self._store.changed:
            pool = self._store.pools[name]
            wanted = dict(pool.properties.get("nodeLabels") or {})
            dropped = pool.machines[machine].labels.keys() - wanted.keys()
        self._machines.relabel(machine, wanted | dict.fromkeys(dropped))
        with self._store.changing(name) as pool:
            pool.machines[machine].labels = wanted

    def _end(self, name: str, step: Step) -> None:
        with self._store.changing(name) as pool:
            operation = pool.operation
            if operation is None or pools.next_step(pool, time.time()) != step:
                return  # something else was asked for in the meantime
            if step.verb == "fail" and operation.fails is not None:
                pools.fail(pool, operation.fails)
            else:
                pools.finish(pool)

    def _failed(self, name: str, step: Step, error: Exception) -> None:
        if step.verb in {"remove", "relabel"} or (step.verb == "await" and not isinstance(error, TimeoutError)):
            # A machine that stays costs money, and the cluster's API may be away for a while: there is no giving up.
            self._pause(RETRY)
            return
        cause = {"code": "AllocationFailed", "message": f"{step.verb} {step.machine}: {type(error).__name__}: {error}"}
        with self._store.changing(name) as pool:
            if pool.operation is not None and pool.operation.kind in {"create", "update"}:
                message = "We are unable to serve this request due to an internal error"
                pools.fail(pool, {"code": "CreateVMSSAgentPoolFailed", "message": message, "details": [cause]})


def order(pool: Pool, machine: pools.Machine, account: Account) -> Machine:
    """A machine with the labels and taints that AKS puts on a node, and the pool's own."""
    size = sizes.find(pool.properties["vmSize"])
    assert size is not None, "a pool of an unknown size is refused"
    labels = {
        "agentpool": pool.name,
        "kubernetes.azure.com/agentpool": pool.name,
        "kubernetes.azure.com/cluster": account.node_resource_group,
        "kubernetes.azure.com/mode": "user",
        "kubernetes.azure.com/os-sku": str(pool.properties.get("osSKU", "Ubuntu")),
        "kubernetes.azure.com/role": "agent",
        "node.kubernetes.io/instance-type": size.name,
        "topology.kubernetes.io/region": account.location,
    }
    taints = list(pool.properties.get("nodeTaints") or [])
    if size.gpus:
        labels |= {"accelerator": "nvidia", "kubernetes.azure.com/accelerator": "nvidia"}
    if pool.spot:
        labels["kubernetes.azure.com/scalesetpriority"] = "spot"
        taints.append("kubernetes.azure.com/scalesetpriority=spot:NoSchedule")
    return Machine(
        name=account.node(pool.name, machine.instance),
        labels=labels | machine.labels,
        taints=list(dict.fromkeys(taints)),
        instance_type=size.name,
        gpus=size.gpus,
        provider_id=account.provider_id(pool.name, machine.instance),
    )
