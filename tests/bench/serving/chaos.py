"""What the server bears: ten times more than it can answer, SIGTERM under streams, sudden deaths, changing adapters.

    make chaos-serving [STORM=60]

The real process as in a pod, with the small model of the bench; everything is on loopback. Each line says what was
seen and whether the bar was met; the last one is a JSON object with all figures. Exit code 1 where a bar was missed.
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

from tests import terminations
from tests.bench.serving import load, models, ours, storm, swaps

OVERLOAD = 10
MADE = "vllm:generation_tokens_total"
WARM_UP = 60.0
"""Of storm: oneDNN prepares, and keeps, a kernel for each number of tokens that a step may have."""
FLAT_MB = 16
"""The last ten seconds' mean over that of the ten seconds after the warm-up, of the replica and of all processes."""
STREAMS = 16
GRACE = 15
"""What a pod has beyond the drain deadline."""
VICTIMS = {"replica": "ServeReplica", "haproxy": "haproxy.cfg", "raylet": "raylet/raylet"}


class Table:
    """Rows, and which bars they missed."""

    def __init__(self):
        self.missed = []

    def row(self, what, seen, met):
        print(f"{what:<56} {seen!s:<40} {'met' if met else 'MISSED'}", flush=True)
        if not met:
            self.missed.append(what)


def main():
    asked = argparse.ArgumentParser()
    asked.add_argument("--seconds", type=float, default=60)
    asked.add_argument("--parts", default="overload,shutdown,deaths,adapters")
    asked = asked.parse_args()
    table, figures = Table(), {}
    with tempfile.TemporaryDirectory() as folder:
        model = models.checkpoint(Path(folder) / "s", "s")
        works = {"overload": overload, "shutdown": shutdown, "deaths": deaths, "adapters": adapters}
        for part in asked.parts.split(","):
            figures[part] = works[part](table, Path(folder), model, asked.seconds)
    print(json.dumps(figures | {"missed": table.missed}))
    sys.exit(bool(table.missed))


def overload(table, folder, model, seconds):
    """Ten times the rate that 32 patient clients get answered at."""
    with ours.running(folder / "pod", model) as pod:
        before, (tokens, rate) = answer(pod), capacity(pod)
        blown = storm.Storm(pod.port, models.requests("s", 999, seed=1))
        with storm.Watch(pod) as watch:
            [made], began = storm.gauges(pod, MADE), time.monotonic()
            asyncio.run(blown.blow(OVERLOAD * rate, WARM_UP + seconds))
            lasted = time.monotonic() - began
            quiet, throughput = idle(pod), (storm.gauges(pod, MADE)[0] - made) / lasted
        health = sorted(watch.health)
        figures = {
            "answered_per_second": round(rate, 1),
            "offered": round(blown.came / (WARM_UP + seconds) / rate, 1),
            "came": blown.came,
            "statuses": dict(blown.statuses),
            "hung_up": dict(blown.hung_up),
            "broken": dict(blown.broken),
            "tokens_per_second": round(tokens),
            "tokens_per_second_in_storm": round(throughput),
            "slowest_health_ms": round(health[-1]),
            "p99_health_ms": round(health[int(0.99 * len(health))]),
            "probes": len(health),
            "unhealthy": dict(watch.unhealthy),
            "seconds_to_idle": quiet,
            "last_ended_after": round(lasted - WARM_UP - seconds, 1),
            **growth(watch.memory, seconds),
            "same_answer_after": answer(pod) == before,
        }
    _judge(table, figures)
    return figures


def _judge(table, seen):
    table.row("overload: statuses", seen["statuses"], set(seen["statuses"]) <= {200, 429, 503} and not seen["broken"])
    grown = max(seen["replica_growth_mb"], seen["growth_mb"])
    table.row(f"overload: MB grown after {WARM_UP:.0f} s, at most {FLAT_MB}", grown, grown <= FLAT_MB)
    quiet = seen["seconds_to_idle"]
    table.row("overload: seconds until nothing runs or waits", quiet, quiet is not None and seen["same_answer_after"])
    slowest = seen["slowest_health_ms"]
    table.row("overload: slowest /health, ms, at most 1000", slowest, slowest <= 1000 and not seen["unhealthy"])


def capacity(pod):
    """Tokens and requests a second of 32 patient clients."""
    for seed in (2, 3):
        asked = models.requests("s", 128, seed=seed)
        told = load.run(pod.port, asked, 32)
    return told.tokens_per_second, told.tokens_per_second / statistics.mean(each.count for each in asked)


def answer(pod):
    """The same whenever it is asked."""
    [asked] = models.requests("s", 1, seed=0)
    return pod.request("POST", "/chat", asked.body())


def idle(pod, seconds=60):
    """How long until the gauges are 0; None if they stay."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        if storm.gauges(pod) == [0, 0]:
            return round(time.monotonic() - began, 2)
        time.sleep(0.05)
    return None


def growth(memory, seconds):
    first = [each for each in memory if WARM_UP <= each[0] < WARM_UP + 10]
    last = [each for each in memory if WARM_UP + seconds - 10 <= each[0] < WARM_UP + seconds]
    means = [[statistics.mean(each[at] for each in some) for some in (first, last)] for at in (1, 2)]
    grown = [round(after - before, 1) for before, after in means]
    every = [round(each[1]) for each in memory[::10]]
    return {"replica_mb": every, "replica_growth_mb": grown[0], "growth_mb": grown[1]}


def shutdown(table, folder, model, _seconds):
    """SIGTERM with streams under way: once with time enough, once without."""
    figures = {}
    for name, drain, tokens in (("in time", 60, 600), ("too long", 2, 3900)):
        with ours.running(folder / "pod", model, DRAIN_SECONDS=str(drain)) as pod:
            ends, gone = asyncio.run(_terminate(pod, tokens))
            code = pod.process.returncode
        wanted, within = ("[DONE]", drain) if name == "in time" else ("error", drain + GRACE)
        seen = {"ends": {end: ends.count(end) for end in set(ends)}, "seconds": round(gone, 1), "exit": code}
        figures[name] = seen
        met = ends == [wanted] * STREAMS and gone <= within and code == 0
        table.row(f"shutdown: {STREAMS} streams {name} for {drain} s, gone within {within} s", seen, met)
    return figures


async def _terminate(pod, tokens):
    """How each stream ended, and the seconds until the process was gone."""
    begun = asyncio.Queue()

    async def stream(number):
        reader, writer = await asyncio.open_connection("127.0.0.1", pod.port, limit=1 << 22)
        body = {"prompt": f"number {number}", "max_tokens": tokens, "ignore_eos": True, "stream": True}
        load.send(writer, "/v1/completions", body)
        parts = []
        try:
            _, content = await load.head(reader)
            async for part in content:
                parts.append(part)
                begun.put_nowait(None)
        except (OSError, asyncio.IncompleteReadError):
            return "cut"
        writer.close()
        last = b"".join(parts).decode().rstrip().rpartition("\n\n")[2].removeprefix("data: ")
        return last if last == "[DONE]" else next(iter(json.loads(last)))

    streams = [asyncio.create_task(stream(number)) for number in range(STREAMS)]
    for _ in range(4 * STREAMS):
        await begun.get()
    began = time.monotonic()
    pod.terminate()
    ends = await asyncio.gather(*streams)
    await asyncio.to_thread(pod.wait, 120)
    return ends, time.monotonic() - began


def deaths(table, folder, model, _seconds):
    """kill -9, one each."""
    figures = {}
    for name, words in VICTIMS.items():
        with ours.running(folder / "pod", model) as pod:
            began = time.monotonic()
            os.kill(pod.process_of(words), signal.SIGKILL)
            code = pod.wait(120)
            seconds = round(time.monotonic() - began, 1)
            left = pod.termination.read_text() if pod.termination.exists() else ""
        told = terminations.of_serving(left)
        figures[name] = {"seconds": seconds, "exit": code, "message": told and told.message}
        met = code == 43 and told is not None and told.reason == "EngineDied"
        table.row(f"death of {name}: the driver's exit code and seconds", f"{code}, {seconds}", met)
    return figures


def adapters(table, folder, model, seconds):
    """Two replicas, whose lists of adapters change under their clients."""
    seen = swaps.run(folder, model, min(seconds, 40))
    met = not seen["failed"] and not seen["restarts"] and seen["changes"] >= 3
    told = {name: seen[name] for name in ("requests", "failed", "changes", "restarts")}
    table.row("adapters: changed under load on 2 replicas", told, met)
    return seen


if __name__ == "__main__":
    main()
