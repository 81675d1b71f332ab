"""Time an ask and a tell with MCTS beside Optuna's random sampler, in a long study in SQLite.

    python experiments/sampler_overhead/measure.py [--trials 5000] [--asks 40] [--output FILE]

A copy of one database for each sampler; their asks take turns, so that whatever else the machine does meets all
alike. "ask" is ``study.ask`` with every suggestion of a walk through the default space (two terms at most). Walks
of different samplers differ in length, and writing a parameter to SQLite costs more than choosing it; so the time
inside the sampler, of which the random sampler needs next to none, is measured apart: by the clock, and as time
of the processor, which other processes do not lengthen.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler, RandomSampler, TPESampler

from autokd.benchmark import current_commit
from autokd.documents import Document
from autokd.search import MCTSSampler, decision_role, suggest
from autokd.space import space_from_document

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


class Timed(BaseSampler):
    """Delegates, and sums the seconds spent inside the sampler since the last reset."""

    def __init__(self, inner: BaseSampler) -> None:
        self.inner = inner
        self.reset()

    def reset(self) -> None:
        self.clock = self.processor = 0.0

    def _timed(self, call: Callable[..., Any], *arguments: Any) -> Any:
        clock, processor = time.perf_counter(), time.thread_time()
        result = call(*arguments)
        self.clock += time.perf_counter() - clock
        self.processor += time.thread_time() - processor
        return result

    def before_trial(self, *arguments: Any) -> None:
        self._timed(self.inner.before_trial, *arguments)

    def infer_relative_search_space(self, *arguments: Any) -> Any:
        return self._timed(self.inner.infer_relative_search_space, *arguments)

    def sample_relative(self, *arguments: Any) -> Any:
        return self._timed(self.inner.sample_relative, *arguments)

    def sample_independent(self, *arguments: Any) -> Any:
        return self._timed(self.inner.sample_independent, *arguments)

    def after_trial(self, *arguments: Any) -> None:
        self._timed(self.inner.after_trial, *arguments)


@dataclass(frozen=True)
class Trial:
    """Milliseconds of one ask with its suggestions and of its tell."""

    ask: float
    ask_in_sampler: float
    ask_in_sampler_processor: float
    tell: float
    tell_in_sampler: float
    num_parameters: int


def timed_trial(study: optuna.Study, value: float) -> Trial:
    sampler = study.sampler
    assert isinstance(sampler, Timed)
    sampler.reset()
    start = time.perf_counter()
    trial = study.ask()
    suggest(trial, SPACE)
    asked, inside, processor = time.perf_counter(), sampler.clock, sampler.processor
    sampler.reset()
    study.tell(trial, value)
    told = time.perf_counter()
    milliseconds = (asked - start, inside, processor, told - asked, sampler.clock)
    return Trial(*(1e3 * seconds for seconds in milliseconds), num_parameters=len(trial.params))


def measure(num_trials: int, num_asks: int) -> dict[str, dict[str, float]]:
    samplers: dict[str, BaseSampler] = {
        "random": RandomSampler(seed=1),
        "mcts": MCTSSampler(1, role=decision_role),
        "mcts, continuous tpe": MCTSSampler(1, role=decision_role, continuous="tpe"),
        "mcts, uct": MCTSSampler(1, policy="uct", role=decision_role),
        "tpe, multivariate": TPESampler(seed=1, multivariate=True, group=True),
    }
    found: dict[str, list[Trial]] = {name: [] for name in samplers}
    rng = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as folder:
        fill(f"sqlite:///{folder}/filled.db", num_trials)
        studies = {}
        for i, (name, sampler) in enumerate(samplers.items()):
            shutil.copy(f"{folder}/filled.db", f"{folder}/{i}.db")
            url = f"sqlite:///{folder}/{i}.db"
            studies[name] = optuna.load_study(study_name="s", storage=url, sampler=Timed(sampler))
            studies[name].get_trials(deepcopy=False)
        for _ in range(num_asks + 1):
            for name, study in studies.items():
                found[name].append(timed_trial(study, float(rng.normal())))
    return {name: _summary(trials) for name, trials in found.items()}


def _summary(trials: list[Trial]) -> dict[str, float]:
    """Medians in milliseconds; the first ask, which folds the whole history, stands apart."""
    first, *rest = trials
    inside = [trial.ask_in_sampler for trial in rest]
    summary = {
        "ask": statistics.median(trial.ask for trial in rest),
        "ask_in_sampler": statistics.median(inside),
        "ask_in_sampler_90_percent": float(np.quantile(inside, 0.9)),
        "ask_in_sampler_processor": statistics.median(trial.ask_in_sampler_processor for trial in rest),
        "tell": statistics.median(trial.tell for trial in rest),
        "tell_in_sampler": statistics.median(trial.tell_in_sampler for trial in rest),
        "first_ask_in_sampler": first.ask_in_sampler,
        "num_parameters": statistics.mean(trial.num_parameters for trial in rest),
    }
    return {name: round(value, 2) for name, value in summary.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=5000)
    parser.add_argument("--asks", type=int, default=40)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    found = {
        "trials": options.trials,
        "milliseconds": measure(options.trials, options.asks),
        "machine": {"cores": os.cpu_count(), "load_1_min": os.getloadavg()[0], "python": platform.python_version()},
        "optuna": optuna.__version__,
        "commit": current_commit(),
    }
    text = json.dumps(found, indent=1)
    print(text)
    if options.output:
        options.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
