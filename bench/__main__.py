"""`python -m bench` measures everything, `python -m bench NAME ...` only that."""

from __future__ import annotations

import argparse
import os
import sys
import time

from bench import generation, raters, start
from bench.table import Row, show

BENCHMARKS = {
    "generate": generation.run,
    "rate": raters.speed,
    "crowd": raters.crowd,
    "start": start.run,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(BENCHMARKS)}")
    names = parser.parse_args().names or list(BENCHMARKS)
    if unknown := [name for name in names if name not in BENCHMARKS]:
        parser.error(f"there is no benchmark {unknown[0]!r}; choose from {', '.join(BENCHMARKS)}")
    rows: list[Row] = []
    for name in names:
        begun = time.monotonic()
        rows += BENCHMARKS[name]()
        print(f"{name}: measured in {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    print(show(rows))
    # Other work on the machine spoils absolute figures first, then ratios.
    print(f"\n{os.cpu_count()} cores, load {', '.join(f'{load:.1f}' for load in os.getloadavg())} at the end")


if __name__ == "__main__":
    main()
