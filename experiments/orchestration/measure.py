"""Measure the share of the workers' time that Ray Tune takes, with evaluators that only sleep.

    python experiments/orchestration/measure.py --trials 40 --seconds 2 --workers 2 --out result.json

Overhead a trial is the worker-seconds between the first outcomes and the last in which no evaluator slept,
divided by the trials between. Start is the time until the first evaluator sleeps, less --factory-seconds;
tail is the time from the last outcome until Ray has gone. Both are paid once a run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Generator
from pathlib import Path

import optuna
import ray

from autokd.benchmark import current_commit
from autokd.config import RuntimeConfig
from autokd.jobs import Evaluator, Job, Outcome, Report, WorkerResources
from autokd.runtime import make_runtime
from autokd.storage import open_study, record_job, record_outcome

EPOCHS = 4
TRIAL_S = 20.0
"""Length of the trials that the ratio is for."""


class Sleeper:
    """Sleeps ``seconds`` in four epochs."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def evaluate(self, job: Job) -> Generator[Report, None, Outcome]:
        for epoch in range(EPOCHS):
            time.sleep(self._seconds / EPOCHS)
            yield Report(job.id, epoch + 1, {"val_loss": 1.0 / (epoch + 1), "cka": 0.1 * epoch})
        return Outcome(job.id, "finished", {"val_loss": 0.25, "cka": 0.3})


class SleeperFactory:
    def __init__(self, seconds: float, factory_seconds: float) -> None:
        self._seconds, self._factory_seconds = seconds, factory_seconds

    def __call__(self, resources: WorkerResources) -> Evaluator:
        time.sleep(self._factory_seconds)
        return Sleeper(self._seconds)


class StudyDriver:
    """Asks and tells a study in SQLite as a search does, with Optuna's random sampler."""

    def __init__(self, study: optuna.Study, num_trials: int) -> None:
        self._study, self._num_trials = study, num_trials
        self._trials: dict[str, optuna.Trial] = {}
        self.ended_s: list[float] = []
        self.busy_s = 0.0
        self.workers: set[str] = set()
        self.decide_s = 0.0

    def next_job(self) -> Job | None:
        if len(self._trials) == self._num_trials:
            return None
        began = time.monotonic()
        trial = self._study.ask()
        for i in range(6):
            trial.suggest_categorical(f"choice_{i}", ["a", "b", "c"])
        self._trials[str(trial.number)] = trial
        job = Job(str(trial.number), None, "proxy")
        record_job(trial, job, owner="measure")
        self.decide_s += time.monotonic() - began
        return job

    def on_report(self, report: Report) -> bool:
        began = time.monotonic()
        self._trials[report.job_id].report(report.metrics["val_loss"], report.epoch)
        self.decide_s += time.monotonic() - began
        return True

    def on_outcome(self, outcome: Outcome) -> None:
        began = time.monotonic()
        trial = self._trials[outcome.job_id]
        record_outcome(trial, outcome)
        self._study.tell(trial, outcome.metrics["val_loss"])
        self.ended_s.append(time.monotonic())
        self.busy_s += outcome.seconds
        self.workers.add(outcome.worker)
        self.decide_s += time.monotonic() - began


def measure(trials: int, seconds: float, workers: int, factory_seconds: float, folder: Path) -> dict[str, object]:
    sampler = optuna.samplers.RandomSampler(seed=0)
    study = open_study(folder / "study.db", "measure", sampler=sampler, direction="minimize")
    driver = StudyDriver(study, trials)
    began = time.monotonic()
    with make_runtime(RuntimeConfig(workers=workers)) as runtime:
        opened = time.monotonic()
        runtime.run(driver, SleeperFactory(seconds, factory_seconds))
        ended = time.monotonic()
    closed = time.monotonic()
    parallel = max(workers, 1)
    between = trials - parallel
    window_s = driver.ended_s[-1] - driver.ended_s[parallel - 1]
    overhead_s = (window_s * parallel - between * seconds) / between
    start_s = driver.ended_s[0] - began - seconds - factory_seconds
    tail_s = closed - driver.ended_s[-1]
    lost_s = overhead_s * 40 + (start_s + tail_s) * parallel
    return {
        "trials": trials,
        "seconds_a_trial": seconds,
        "workers": workers,
        "num_worker_processes": len(driver.workers),
        "overhead_s_a_trial": round(overhead_s, 4),
        "of_which_ask_and_tell_s_a_trial": round(driver.decide_s / trials, 4),
        "ray_start_s": round(opened - began, 3),
        "start_s": round(start_s, 3),
        "tail_s": round(tail_s, 3),
        "run_s": round(ended - opened, 3),
        "ratio_for_40_trials_of_20_s_steady": round(overhead_s / TRIAL_S, 5),
        "ratio_for_40_trials_of_20_s_with_start_and_end": round(lost_s / (40 * TRIAL_S), 5),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--factory-seconds", type=float, default=1.0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(options.trials, options.seconds, options.workers, options.factory_seconds, Path(folder))
    result |= {
        "commit": current_commit(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        "versions": {"python": platform.python_version(), "ray": ray.__version__, "optuna": optuna.__version__},
    }
    text = json.dumps(result, indent=2)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
