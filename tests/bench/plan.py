"""What `kaito-hera plan` costs a machine: CPU seconds of whole processes, and the modules that take longest to import.

    make bench-plan

The last line is one JSON object.
"""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TRIES = 15
SHOWN = 10
COMMANDS = {
    "plan": ["plan", "tests/workflows/plans/fall-back.yaml"],
    "presets": ["presets"],
    "sizes": ["sizes", "--fits", "phi-4"],
}


def main():
    figures = {f"{name}_cpu_s": statistics.median(cpu(line) for _ in range(TRIES)) for name, line in COMMANDS.items()}
    for took, module in imports(COMMANDS["plan"])[:SHOWN]:
        print(f"{took / 1e6:8.3f} s  {module}")
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}))


def cpu(line):
    """User and system seconds of one process."""
    process = subprocess.Popen([sys.executable, "-m", "workflows", *line], cwd=ROOT, stdout=subprocess.DEVNULL)
    used = os.wait4(process.pid, 0)[2]
    process.returncode = 0
    return used.ru_utime + used.ru_stime


def imports(line):
    """Microseconds that each module's import took by itself, most first."""
    command = [sys.executable, "-X", "importtime", "-m", "workflows", *line]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stderr
    rows = [row.removeprefix("import time:").split("|") for row in told.splitlines() if "|" in row]
    return sorted(((int(own), name.strip()) for own, _, name in rows[1:]), reverse=True)


if __name__ == "__main__":
    main()
