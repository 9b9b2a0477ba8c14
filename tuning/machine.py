"""The machine as KAITO's metrics server tells it: its GPUs, or where there is none its processors and memory.

Asks nvidia-smi and /proc, so that no library is needed. KAITO divides the GPU's MiB by 1024^3, which leaves 0.00 GB;
here they are GiB, under its word GB.
"""

import csv
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

_QUERY = "index,name,utilization.gpu,temperature.gpu,memory.used,memory.total"
_SECONDS = 5.0
_SAMPLE_SECONDS = 0.1


def look() -> dict[str, Any]:
    """`gpu_info` or `cpu_info`, the other one None; raises OSError or ValueError where neither can be had."""
    if gpus := _gpus():
        return {"gpu_info": gpus, "cpu_info": None}
    return {"gpu_info": None, "cpu_info": _processors()}


def _gpus() -> list[dict[str, Any]]:
    asked = shutil.which("nvidia-smi")
    if asked is None:
        return []
    command = [asked, f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        return []
    return of_csv(done.stdout) if done.returncode == 0 else []


def of_csv(text: str) -> list[dict[str, Any]]:
    """What nvidia-smi says of each GPU."""
    rows = [row for row in csv.reader(text.splitlines(), skipinitialspace=True) if len(row) == _QUERY.count(",") + 1]
    return [
        {
            "id": index,
            "name": name,
            "load": f"{_number(load):.2f}%",
            "temperature": f"{_number(temperature):.1f} C",
            "memory": {"used": f"{_number(used) / 1024:.2f} GB", "total": f"{_number(total) / 1024:.2f} GB"},
        }
        for index, name, load, temperature, used, total in rows
    ]


def _number(text: str) -> float:
    """Zero for what a GPU does not tell: a slice of one has no load of its own."""
    try:
        return float(text)
    except ValueError:
        return 0.0


def _processors() -> dict[str, Any]:
    busy, whole = _ticks()
    time.sleep(_SAMPLE_SECONDS)
    then_busy, then_whole = _ticks()
    memory = _memory()
    total = memory["MemTotal"]
    return {
        "load_percentage": round(100 * (then_busy - busy) / max(1, then_whole - whole), 1),
        "physical_cores": _cores(),
        "total_cores": os.cpu_count() or 1,
        "memory": {"used": _gib(total - memory.get("MemAvailable", total)), "total": _gib(total)},
    }


def _ticks() -> tuple[int, int]:
    """Of all processors since the start: those that worked, and all."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return sum(fields) - fields[3] - fields[4], sum(fields)


def _cores() -> int:
    """Without hyperthreads."""
    cores, socket = set(), "0"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        socket = value.strip() if name.strip() == "physical id" else socket
        if name.strip() == "core id":
            cores.add((socket, value.strip()))
    return len(cores) or os.cpu_count() or 1


def _memory() -> dict[str, int]:
    """KiB by name."""
    lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    return {words[0].rstrip(":"): int(words[1]) for words in lines if len(words) > 1}


def _gib(kib: int) -> str:
    return f"{kib / 1024**2:.2f} GB"
