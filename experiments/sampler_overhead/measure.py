"""How much longer an ask and a tell take with MCTS than with Optuna's random sampler, in a long study in SQLite.

    python experiments/sampler_overhead/measure.py [--trials 5000] [--asks 40] [--output FILE]

Two copies of one database, one a sampler; their asks take turns, so that whatever else the machine does meets
both alike. "ask" is ``study.ask`` with every suggestion of a walk through the default space (two terms at most).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import optuna
from optuna.samplers import BaseSampler, RandomSampler

from autokd.documents import Document
from autokd.search import MCTSSampler, decision_role, suggest
from autokd.space import Space, space_from_document

SPACE = space_from_document(Document({}))


def fill(url: str, num_trials: int) -> None:
    """A study of finished trials with random walks and values."""
    memory = optuna.create_study(sampler=RandomSampler(seed=0))
    rng = np.random.default_rng(0)
    for _ in range(num_trials):
        trial = memory.ask()
        suggest(trial, SPACE)
        memory.tell(trial, float(rng.normal()))
    study = optuna.create_study(storage=url, study_name="s")
    study.add_trials(memory.get_trials(deepcopy=False))


def timed_trial(study: optuna.Study, space: Space, value: float) -> tuple[float, float, int]:
    """Milliseconds of ask with its suggestions, and of tell; the number of parameters."""
    start = time.perf_counter()
    trial = study.ask()
    suggest(trial, space)
    asked = time.perf_counter()
    study.tell(trial, value)
    return (asked - start) * 1e3, (time.perf_counter() - asked) * 1e3, len(trial.params)


def measure(num_trials: int, num_asks: int) -> dict[str, object]:
    samplers: dict[str, BaseSampler] = {
        "random": RandomSampler(seed=1),
        "mcts": MCTSSampler(1, role=decision_role),
        "mcts, uct": MCTSSampler(1, policy="uct", role=decision_role),
    }
    times: dict[str, list[tuple[float, float, int]]] = {name: [] for name in samplers}
    rng = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as folder:
        fill(f"sqlite:///{folder}/filled.db", num_trials)
        studies = {}
        for i, (name, sampler) in enumerate(samplers.items()):
            shutil.copy(f"{folder}/filled.db", f"{folder}/{i}.db")
            studies[name] = optuna.load_study(study_name="s", storage=f"sqlite:///{folder}/{i}.db", sampler=sampler)
            studies[name].get_trials(deepcopy=False)
        for _ in range(num_asks + 1):
            for name, study in studies.items():
                times[name].append(timed_trial(study, SPACE, float(rng.normal())))
    return {name: _summary(found) for name, found in times.items()}


def _summary(found: list[tuple[float, float, int]]) -> dict[str, float]:
    """The first ask, which folds the whole history, stands apart. Per parameter, since walks differ in length."""
    rest = found[1:]
    return {
        "first_ask_ms": round(found[0][0], 2),
        "ask_ms": round(statistics.median(ask for ask, _, _ in rest), 2),
        "ask_ms_90_percent": round(float(np.quantile([ask for ask, _, _ in rest], 0.9)), 2),
        "ask_ms_per_parameter": round(sum(ask for ask, _, _ in rest) / sum(n for _, _, n in rest), 2),
        "tell_ms": round(statistics.median(tell for _, tell, _ in rest), 2),
        "parameters": round(statistics.mean(n for _, _, n in rest), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=5000)
    parser.add_argument("--asks", type=int, default=40)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    found = {
        "trials": options.trials,
        "samplers": measure(options.trials, options.asks),
        "machine": {"cores": os.cpu_count(), "load_1_min": os.getloadavg()[0], "python": platform.python_version()},
        "optuna": optuna.__version__,
        "commit": subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent
        ).stdout.strip(),
    }
    text = json.dumps(found, indent=1)
    print(text)
    if options.output:
        options.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
