"""Clients that come at a rate, whether or not those before them were answered; half of them hang up on the way."""

import asyncio
import contextlib
import itertools
import json
import random
import re
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path

from tests.bench.serving import load

MANNERS = ("stays", "half a body", "before an answer", "at the first token", "any time")
OFTEN = (5, 1, 1, 1, 2)
PAGE = 4096


class Storm:
    """What came of them so far."""

    def __init__(self, port, asked, seed=0):
        self.port, self._asked = port, itertools.cycle(asked)
        self.came = 0
        self.statuses, self.hung_up, self.broken = Counter(), Counter(), Counter()
        self._chance = random.Random(seed)

    async def blow(self, rate, seconds):
        """So many clients a second for so long, and until the last of them has ended."""
        loop = asyncio.get_running_loop()
        at, ends, inside = loop.time(), loop.time() + seconds, set()
        while at < ends:
            at += self._chance.expovariate(rate)
            await asyncio.sleep(max(0.0, at - loop.time()))
            client = asyncio.create_task(self._client())
            inside.add(client)
            client.add_done_callback(inside.discard)
        await asyncio.gather(*inside)

    async def _client(self):
        self.came += 1
        manner = self._chance.choices(MANNERS, OFTEN)[0]
        each, streams = next(self._asked), self._chance.random() < 0.5
        path, body = ("/v1/completions", each.streamed()) if streams else ("/chat", each.body())
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 22)
            try:
                if await self._speak(reader, writer, manner, path, body):
                    self.hung_up[manner] += 1
            finally:
                writer.transport.abort()
        except (OSError, EOFError, ValueError, asyncio.IncompleteReadError) as error:
            self.broken[type(error).__name__] += 1

    async def _speak(self, reader, writer, manner, path, body):
        """True where it hung up before the end."""
        if manner == "half a body":
            content = json.dumps(body).encode()
            head = f"POST {path} HTTP/1.1\r\nHost: b\r\nContent-Type: application/json\r\nContent-Length: "
            writer.write(f"{head}{len(content)}\r\n\r\n".encode() + content[: len(content) // 2])
            await asyncio.sleep(0.02)
            return True
        load.send(writer, path, body)
        if manner == "before an answer":
            await asyncio.sleep(self._chance.uniform(0, 0.1))
            return True
        patience = self._chance.uniform(0, 3) if manner == "any time" else None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                return await self._listen(reader, path, hasty=manner == "at the first token")
        return True

    async def _listen(self, reader, path, *, hasty):
        status, content = await load.head(reader)
        self.statuses[status] += 1
        parts = []
        async for part in content:
            parts.append(part)
            if hasty and status == 200:
                return True
        whole = b"".join(parts)
        if status == 200 and path == "/v1/completions" and not whole.endswith(b"data: [DONE]\n\n"):
            self.broken["stream without its end"] += 1
        return False


def gauges(pod, *names):
    """Samples of /metrics; how many requests run and how many wait, if none are named."""
    wanted = "|".join(names or ("vllm:num_requests_running", "vllm:num_requests_waiting"))
    _, text = pod.request("GET", "/metrics")
    return [float(each) for each in re.findall(rf"^(?:{wanted})\{{.*\}} (\S+)$", text, re.MULTILINE)]


class Watch:
    """Memory and health meanwhile, from threads of their own."""

    def __init__(self, pod):
        self._pod, self._over = pod, threading.Event()
        self.health, self.unhealthy = [], Counter()
        """Milliseconds of each answer; what was none."""
        self.memory = []
        """(seconds, MB of the replica, MB of all)."""

    def __enter__(self):
        self._threads = [threading.Thread(target=work) for work in (self._ask, self._weigh)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _ask(self):
        while not self._over.wait(0.1):
            began = time.monotonic()
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self._pod.port}/health", timeout=30):
                    pass
            except (OSError, urllib.error.URLError) as error:
                self.unhealthy[str(error)] += 1
            self.health.append(1000 * (time.monotonic() - began))

    def _weigh(self):
        replica, began = self._pod.replica(), time.monotonic()
        while not self._over.wait(1):
            sizes = {pid: _resident(pid) for pid in self._pod.tree()}
            self.memory.append((time.monotonic() - began, sizes.get(replica, 0), sum(sizes.values())))


def _resident(pid):
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE / 1e6
    return 0.0
