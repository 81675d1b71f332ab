"""``python -m tests.chaos --count 200 --seed 1 --record FILE``: faults one after another; exit code 1 if one was not
survived. Faults that the record holds already are not repeated."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.chaos.faults import Fault
from tests.chaos.searches import Laboratory
from tests.chaos.suite import records, survive, undisturbed


def main() -> int:
    """Run the suite; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200, help="number of faults")
    parser.add_argument("--seed", type=int, default=1, help="seed of the faults")
    parser.add_argument("--ray-share", type=float, default=0.1, help="part of the faults that hit a search on Ray")
    parser.add_argument("--record", type=Path, help="file of JSON lines that results are added to")
    parser.add_argument("--folder", type=Path, help="folder to work in; default: a temporary one")
    parser.add_argument("--minutes", type=float, default=40.0, help="minutes after which no further fault begins")
    parser.add_argument("--quick", action="store_true", help="search once without faults, not twice")
    parser.add_argument("--part", default="0/1", help="K/N: of every N faults only the K-th, for N processes")
    arguments = parser.parse_args()
    part, parts = map(int, arguments.part.split("/"))
    import_everything()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    done = records(arguments.record, arguments.seed) if arguments.record else {}
    faults = [Fault.draw(arguments.seed, number, arguments.ray_share) for number in range(part, arguments.count, parts)]
    waiting = [fault for fault in faults if fault.number not in done]
    began_s = time.monotonic()
    if waiting:
        laboratory = Laboratory(folder)
        expected = undisturbed(laboratory, with_ray=any(fault.workers for fault in waiting), repeat=not arguments.quick)
        print(f"undisturbed: {expected.cpu_s}", flush=True)
    for fault in waiting:
        if time.monotonic() - began_s > 60 * arguments.minutes:
            print(f"{len(waiting) - len(done)} faults are left; run it again with the same --record")
            break
        row = {"seed": arguments.seed, "load": round(os.getloadavg()[0], 1), **survive(laboratory, expected, fault)}
        done[fault.number] = row
        if arguments.record:
            with arguments.record.open("a") as file:
                file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)
    return report(list(done.values()))


def report(rows: list[dict[str, object]]) -> int:
    """Print what was survived by kind; return the exit code.

    Args:
        rows: results of faults.
    """
    hit, survived = Counter[str](), Counter[str]()
    for row in rows:
        hit[str(row["kind"])] += 1
        survived[str(row["kind"])] += not row["wrong"]
    for kind in sorted(hit):
        print(f"{kind:12s} {survived[kind]} of {hit[kind]}")
    print(f"{'all':12s} {sum(survived.values())} of {sum(hit.values())}")
    return int(survived != hit)


def import_everything() -> None:
    """Import what a search imports, so that the forks need not."""
    import optuna.samplers  # noqa: F401
    import ray  # noqa: F401
    import rich.live  # noqa: F401
    import torch

    import autokd.cli.live
    import autokd.report
    import autokd.study  # noqa: F401

    torch.set_num_threads(1)


if __name__ == "__main__":
    sys.exit(main())
