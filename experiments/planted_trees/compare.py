"""Count the trials to a leaf of the best 1% on planted trees, for MCTS and for Optuna's samplers.

    python experiments/planted_trees/compare.py [--repeats 40] [--workers 1] [--top 0.01] [--output FILE]
        [--families additive branching grammar path distillers] [--samplers mcts ...] [--first-instance 0]

Repeat r of a family is its instance r with sampler seed r, the same for every sampler. A search ends when a trial's
true value is among the best ``top``; it counts the trials told by then, or --cap. Samplers see noisy values. With
more than one worker that many trials are always running, and one of the four oldest ends next. An output file that
is there already keeps its other rows; every row says at which commit it was made.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from families import FAMILIES, Planted
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler

from autokd.benchmark import current_commit
from autokd.benchmark.bootstrap import interval_95
from autokd.search import MCTSSampler, decision_role
from autokd.search.suggest import TrialChooser

SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "random": RandomSampler,
    "nsga2": lambda seed: NSGAIISampler(population_size=20, seed=seed),
    "tpe": lambda seed: TPESampler(seed=seed, multivariate=False),
    "tpe, multivariate, group": lambda seed: TPESampler(seed=seed, multivariate=True, group=True),
    "mcts, uct": lambda seed: MCTSSampler(seed, policy="uct"),
    "mcts, continuous tpe": lambda seed: MCTSSampler(seed, continuous="tpe"),
    "mcts": MCTSSampler,
    "mcts, roles": lambda seed: MCTSSampler(seed, role=decision_role),
}
ONLY_WITH_NUMBERS = ("mcts, continuous tpe",)
ONLY_WITH_ROLES = ("mcts, roles",)


@cache
def instance(family: str, repeat: int, top: float) -> Planted:
    return Planted(family, repeat, top=top)


def trials_needed(sampler: BaseSampler, planted: Planted, num_workers: int, cap: int) -> int:
    study = optuna.create_study(direction="maximize", sampler=sampler)
    order = np.random.default_rng((planted.seed, 1))
    running: list[tuple[optuna.Trial, float]] = []
    for told in range(1, cap + 1):
        while len(running) < num_workers:
            trial = study.ask()
            running.append((trial, planted.true_value(TrialChooser(trial))))
        trial, value = running.pop(int(order.integers(min(4, len(running)))))
        study.tell(trial, planted.observe(value, trial.number))
        if value >= planted.threshold:
            return told
    return cap


def applies(sampler: str, family: str) -> bool:
    return (sampler not in ONLY_WITH_NUMBERS or family in ("grammar", "distillers")) and (
        sampler not in ONLY_WITH_ROLES or family == "distillers"
    )


def kept_rows(output: Path, settings: dict[str, object]) -> list[dict[str, Any]]:
    """Return the rows of an earlier run; a file that was made with other settings is refused."""
    if not output.exists():
        return []
    recorded = json.loads(output.read_text())
    if {name: recorded[name] for name in settings} != settings:
        raise SystemExit(f"{output} was made with other settings than {settings}. Name another file.")
    return list(recorded["rows"])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--first-instance", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--top", type=float, default=0.01)
    parser.add_argument("--cap", type=int, default=250)
    parser.add_argument("--families", nargs="+", default=[*FAMILIES])
    parser.add_argument("--samplers", nargs="+", default=[*SAMPLERS])
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    settings = {name: getattr(options, name) for name in ("repeats", "first_instance", "workers", "top", "cap")}
    made_with = {"commit": current_commit(), "optuna": optuna.__version__}
    rows = kept_rows(options.output, settings) if options.output else []
    for family in options.families:
        for name in options.samplers:
            if not applies(name, family):
                continue
            start = time.perf_counter()
            found = [
                trials_needed(
                    SAMPLERS[name](repeat), instance(family, repeat, options.top), options.workers, options.cap
                )
                for repeat in range(options.first_instance, options.first_instance + options.repeats)
            ]
            median, (low, high), mean = float(np.median(found)), interval_95(found, np.median), float(np.mean(found))
            row = {"family": family, "sampler": name, "median": median, "interval": [low, high], "mean": mean}
            rows = [old for old in rows if (old["family"], old["sampler"]) != (family, name)]
            rows.append(row | made_with | {"trials": found})
            print(
                f"{family:11} {name:25} median {median:6.1f} [{low:5.1f}, {high:5.1f}]  mean {mean:6.1f}"
                f"  ({time.perf_counter() - start:.0f} s)",
                flush=True,
            )
            if options.output:
                rows.sort(key=lambda row: (row["family"], [*SAMPLERS].index(row["sampler"])))
                options.output.write_text(json.dumps({**settings, "rows": rows}) + "\n")


if __name__ == "__main__":
    main()
