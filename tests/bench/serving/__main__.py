"""Our server under Ray Serve against `/chat` as KAITO did it, over HTTP, in alternating pairs.

    make bench-serving [PAIRS=5]

The same models, number type, threads, prompts and lengths, greedy. The last line is one JSON object.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from tests.bench.serving import load, models, ours
from tests.serving.registry import free_port

REQUESTS = {1: 8, 8: 48, 32: 96}
"""By the number of clients."""
HERE = Path(__file__).parent
ROWS = "{:<6} {:>8} {:>12} {:>12} {:>9} {:>15}"


def main():
    asked = argparse.ArgumentParser()
    asked.add_argument("--pairs", type=int, default=5)
    asked.add_argument("--models", default="s,m")
    asked = asked.parse_args()
    print(ROWS.format("model", "clients", "ours tok/s", "locked tok/s", "ratio", "spread"))
    with tempfile.TemporaryDirectory() as folder:
        figures = {size: measure(size, Path(folder), asked.pairs) for size in asked.models.split(",")}
    both = {
        name: statistics.mean(each.pop(name) for each in figures.values()) for name in ("token_identical", "ray_cost")
    }
    print(json.dumps(figures | {name: round(value, 4) for name, value in both.items()} | engine()))


def measure(size, folder, pairs):
    """The ratios of one model."""
    model = models.checkpoint(folder / size, size)
    lock, free = [str(HERE / "baseline.py"), str(model), "--lock"], [str(HERE / "baseline.py"), str(model)]
    bare = ["-m", "tests.bench.serving.bare", str(model)]
    with (
        ours.running(folder / f"pod-{size}", model) as pod,
        other(*lock) as locked,
        other(*free) as plain,
        other(*bare) as no_ray,
    ):
        servers = {"ours": pod.port, "locked": locked}
        for server in (*servers.values(), plain, no_ray):
            load.run(server, models.requests(size, 8, seed=999), 8)
        runs = {clients: compare(servers, size, clients, pairs) for clients in REQUESTS}
        kaito = [
            load.run(plain, models.requests(size, REQUESTS[32], seed=pair), 32).tokens_per_second
            for pair in range(min(2, pairs))
        ]
        streams = [load.run(pod.port, models.requests(size, 96, seed=pair), 32, stream=True) for pair in range(2)]
        both = compare({"ours": pod.port, "bare": no_ray}, size, 32, min(3, pairs))
    own = [pair["ours"].tokens_per_second for pair in runs[32]]
    figures = {f"c{clients}": round(show(size, clients, found), 3) for clients, found in runs.items()}
    return figures | {
        "kaito_c32": round(statistics.median(own) / statistics.median(kaito), 2),
        "ttft_p50_ms_c32": round(1000 * statistics.median(each.ttft_p50 for each in streams), 1),
        "p95_ratio_c32": round(statistics.median(pair["ours"].p95 / pair["locked"].p95 for pair in runs[32]), 3),
        "ray_cost": round(1 - statistics.median(ratios(both, "ours", "bare")), 3),
        "token_identical": identical([pair for found in runs.values() for pair in found]),
    }


def compare(servers, size, clients, pairs):
    """Each server once per pair, in turns of who begins."""
    found = []
    for pair in range(pairs):
        order = list(servers)[:: 1 if pair % 2 else -1]
        asked = {name: models.requests(size, REQUESTS[clients], seed=1000 * clients + pair) for name in order}
        found.append({name: load.run(servers[name], asked[name], clients) for name in order})
    return found


def show(size, clients, found):
    each = ratios(found, "ours", "locked")
    ours, locked = (statistics.median(pair[name].tokens_per_second for pair in found) for name in ("ours", "locked"))
    median = statistics.median(each)
    spread = f"{min(each):.2f} - {max(each):.2f}"
    print(ROWS.format(size, clients, f"{ours:.0f}", f"{locked:.0f}", f"{median:.2f}", spread), flush=True)
    return median


def ratios(found, one, to):
    return [pair[one].tokens_per_second / pair[to].tokens_per_second for pair in found]


def identical(pairs):
    """The share of answers that are the baseline's, word by word; it shows a character that the last token cuts."""
    both = [each for pair in pairs for each in zip(pair["ours"].texts, pair["locked"].texts, strict=True)]
    return sum(ours == locked.rstrip("\ufffd") for ours, locked in both) / len(both)


@contextlib.contextmanager
def other(*command):
    """Any other server: its command, to which the port is added."""
    port, (*first, last) = free_port(), command
    line = [sys.executable, *first, last, str(port)] if last != "--lock" else [sys.executable, *first, str(port), last]
    environment = {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(line, env=environment)
    try:
        ends = time.monotonic() + 120
        while not _answers(port):
            assert time.monotonic() < ends, f"{line} does not answer"
            assert process.poll() is None, f"{line} ended with {process.returncode}"
            time.sleep(0.1)
        yield port
    finally:
        process.kill()
        process.wait()


def _answers(port):
    with contextlib.suppress(OSError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1)
        return True
    return False


def engine():
    """What the engine's own bench says of adapters."""
    command = [sys.executable, "-m", "tests.bench.engine"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = json.loads(told.splitlines()[-1])
    return {name: found[name] for name in ("lora_slowdown_k8", "lora_slowdown_1of8")}


if __name__ == "__main__":
    main()
