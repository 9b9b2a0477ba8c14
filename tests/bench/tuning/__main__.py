"""Tuning against KAITO's way on identical rows, each in processes of its own, in alternating pairs.

    make bench-tuning [PAIRS=5]

The same optimizer steps, number type and threads. The last line is one JSON object.
"""

import argparse
import json
import tempfile
from pathlib import Path

import transformers

from tests.bench.tuning import learned, speed

PARTS = {name: part for part in (speed, learned) for name in part.BARS}
"""Figure to the module that measures it: `figures(pairs, scratch, names)` and `BARS`."""
ROWS = "{:<20} {:>9} {:>16} {:>14}"


def main():
    asked = argparse.ArgumentParser()
    asked.add_argument("--pairs", type=int, default=5)
    asked.add_argument("--only", default=",".join(PARTS))
    asked = asked.parse_args()
    transformers.logging.disable_progress_bar()
    print(ROWS.format("figure", "middle", "spread", "bar"))
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name in asked.only.split(","):
            found[name] = told(name, PARTS[name].figures(asked.pairs, Path(scratch), [name])[name])
    print(json.dumps(found))


def told(name, values):
    """The middle of the values, by the part's own measure of it, after a line of the table."""
    (bar, side), middle = PARTS[name].BARS[name], PARTS[name].MIDDLE(values)
    spread = f"{min(values):.3g} to {max(values):.3g}"
    print(ROWS.format(name, f"{middle:.3f}", spread, f"{side} {bar}"), flush=True)
    return round(middle, 4)


if __name__ == "__main__":
    main()
