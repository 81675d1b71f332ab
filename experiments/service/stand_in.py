"""A stand-in for ``autokd search``: the files of a run and its pace, without a training. For the service's own tests.

It takes the arguments that a service gives, writes config, progress and results as a search does, ends at SIGINT and
SIGTERM, and goes on with ``--resume``. Nothing is imported that takes long, so that dozens can run at once.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path


def main() -> int:
    """Play a search; return its exit code."""
    arguments = _arguments()
    run_dir = arguments.run_dir
    run_dir.mkdir(parents=True, exist_ok=True)
    config = run_dir / "config.yaml"
    if config.exists() and not arguments.resume:
        print(f"autokd: {run_dir}: the folder holds a run already.", flush=True)
        return 2
    config.write_text(arguments.config.read_text())
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(130))
    done = _earlier(run_dir)
    began = time.time()
    print(f"begins at trial {done} of {arguments.trials}", flush=True)
    while done < arguments.trials:
        time.sleep(float(os.environ.get("STAND_IN_TRIAL_S", "0.1")))
        done += 1
        print(f"trial {done}/{arguments.trials} finished {_value(done):+.3f}", flush=True)
        _write(run_dir / "progress.json", _progress(done, arguments.trials, began))
    _write(run_dir / "results.json", _results(arguments.trials))
    (run_dir / "student.pt").write_bytes(b"weights of a stand-in")
    (run_dir / "best_distiller.yaml").write_text("schema: 2\nterms: []\n")
    (run_dir / "report.html").write_text("<!doctype html><title>report</title>")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("verb", choices=["search"])
    parser.add_argument("config", type=Path)
    parser.add_argument("--trials", type=int, required=True)
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--cache-dir", type=Path)
    parser.add_argument("--forecast", type=float)
    parser.add_argument("--ray-address")
    parser.add_argument("--resume", action="store_true")
    return parser.parse_args()


def _value(number: int) -> float:
    """Return the reward of a trial: some order of numbers, the same each time."""
    return ((number * 7919) % 101) / 50 - 1


def _earlier(run_dir: Path) -> int:
    try:
        return int(json.loads((run_dir / "progress.json").read_text())["stages"][0]["done"])
    except (OSError, ValueError):
        return 0


def _progress(done: int, trials: int, began: float) -> dict[str, object]:
    best = max(range(1, done + 1), key=_value)
    now = time.time()
    stage = {"name": "trials", "done": done, "total": trials, "began_s": began, "first_done": 0, "updated_s": now}
    return {"schema_": 1, "began_s": began, "updated_s": now, "is_over": done == trials, "stages": [stage],
            "best": _value(best), "best_trial": best, "best_formula": "40 x l2(F)", "said": []}  # fmt: skip


def _results(trials: int) -> dict[str, object]:
    def entry(name: str, ap: float) -> dict[str, object]:
        return {"name": name, "seeds": [0, 1], "val_ap": [ap, ap + 0.01], "test_ap": [ap - 0.02, ap],
                "train_seconds": [1.0, 1.0]}  # fmt: skip

    return {"schema": 1, "name": "stand-in", "search": {"sampler": "mcts", "finished": trials}, "winner": "searched",
            "entries": [entry("none", 0.30), entry("searched", 0.35)]}  # fmt: skip


def _write(path: Path, data: object) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_text(json.dumps(data))
    part.replace(path)


if __name__ == "__main__":
    sys.exit(main())
