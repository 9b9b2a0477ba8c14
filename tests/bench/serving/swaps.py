"""Adapters that come, change and go on two replicas while clients stream: what their Service's clients see of it."""

import asyncio
import contextlib
import random
import time
from collections import Counter

from serving.config import Adapter, Adapters, Served
from tests.bench.serving import load, models, ours
from tests.serving import registry, tiny

REPLICAS, CLIENTS = 2, 8
NAMES = ("stays", "b", "c", "d")


class Fleet:
    """The replicas, and the ConfigMap that they mount."""

    def __init__(self, folders, host):
        self._folders, self._host = folders, host
        self._writes = 0

    def listed(self, strengths):
        return tuple(
            Adapter(name=name, image=f"{self._host}/team/{name}:1", strength=each) for name, each in strengths.items()
        )

    def write(self, wanted):
        """Each replica's volume as the kubelet changes it: a new folder, and a link to it that is replaced."""
        self._writes += 1
        for folder in self._folders:
            new, link = folder / f"..{self._writes}", folder / "..data_tmp"
            new.mkdir(parents=True)
            (new / "adapters.json").write_bytes(Adapters.dump_json(wanted))
            link.symlink_to(new.name)
            link.replace(folder / "..data")
            if not (folder / "adapters.json").is_symlink():
                (folder / "adapters.json").symlink_to("..data/adapters.json")


def run(folder, model, seconds):
    """What came of it."""
    pods = [folder / f"replica-{number}" for number in range(REPLICAS)]
    with registry.running(folder / "registry") as host, contextlib.ExitStack() as stack:
        fleet = Fleet([each / "config" for each in pods], host)
        fleet.write(fleet.listed({"stays": 1.0}))
        for number, name in enumerate(NAMES):
            made = tiny.adapter(folder / name, model, number)
            files = {each: (made / each).read_bytes() for each in ("adapter_config.json", "adapter_model.safetensors")}
            registry.push(folder, registry.kaito_image(files), f"{host}/team/{name}:1")
        for each in pods:
            registry.plain_http(each / "config", host)
        running = [stack.enter_context(ours.running(each, model)) for each in pods]
        before = [(pod.driver(), pod.replica()) for pod in running]
        seen = asyncio.run(_serve(running, fleet, seconds))
        after = [(pod.driver(), pod.replica()) for pod in running]
    return seen | {"restarts": sum(one != other for one, other in zip(before, after, strict=True))}


async def _serve(pods, fleet, seconds):
    statuses, failed, over = Counter(), Counter(), asyncio.Event()
    clients = [asyncio.create_task(_client(number, pods, over, statuses, failed)) for number in range(CLIENTS)]
    ends, chance, took = time.monotonic() + seconds, random.Random(5), []
    while time.monotonic() < ends:
        others = {name: chance.choice((0.25, 0.5, 1.0)) for name in NAMES[1:] if chance.random() < 0.6}
        wanted = fleet.listed({"stays": chance.choice((0.5, 1.0))} | others)
        began = time.monotonic()
        fleet.write(wanted)
        while any([await asyncio.to_thread(_lacks, pod, wanted) for pod in pods]):  # noqa: ASYNC110 (polled)
            await asyncio.sleep(0.05)
        took.append(time.monotonic() - began)
        await asyncio.sleep(0.5)
    over.set()
    await asyncio.gather(*clients)
    return {
        "requests": sum(statuses.values()),
        "statuses": dict(statuses),
        "failed": dict(failed),
        "changes": len(took),
        "slowest_change_seconds": round(max(took), 1),
    }


def _lacks(pod, wanted):
    return Served.model_validate(pod.request("GET", "/v1/models")[1]).lacks(wanted)


async def _client(number, pods, over, statuses, failed):
    """Asks now one replica, now the other, for the sum of all or for the one adapter that stays."""
    for turn, each in enumerate(models.requests("s", 9999, seed=number)):
        if over.is_set():
            return
        port = pods[(turn + number) % REPLICAS].port
        body = each.streamed() | {"model": ours.NAME if turn % 2 else "stays"}
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
            load.send(writer, "/v1/completions", body)
            status, content = await load.head(reader)
            whole = b"".join([part async for part in content])
            writer.close()
        except (OSError, asyncio.IncompleteReadError) as error:
            failed[type(error).__name__] += 1
            continue
        statuses[status] += 1
        if status != 200 or not whole.endswith(b"data: [DONE]\n\n"):
            failed[whole[-200:].decode(errors="replace")] += 1
