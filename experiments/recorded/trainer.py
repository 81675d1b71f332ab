"""Trains as a search's worker does, in this process, and makes what a training stands on beforehand."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from autokd.config import ResolvedConfig, load_config
from autokd.detectors import resolve
from autokd.documents import dump_yaml, load_document
from autokd.outcomes import Evaluator, Job, Outcome, WorkerResources
from autokd.space import enumerate_specs

TRAIN_SECONDS = "train_seconds"
"""A metric of every report: what training took until then, without the measuring."""


def read_config(path: Path) -> ResolvedConfig:
    """The file; AUTOKD_BCCD, where set, is the folder of its photographs."""
    if "AUTOKD_BCCD" in os.environ:
        return resolve(load_config(dump_yaml(read_data(path))))
    return resolve(load_config(path))


def read_data(path: Path) -> dict[str, Any]:
    """The file as plain data, for an experiment to change before it is a configuration; AUTOKD_BCCD as above."""
    data: dict[str, Any] = load_document(path).data
    if "AUTOKD_BCCD" in os.environ and data["data"].get("format") == "coco":
        data["data"]["root"] = os.environ["AUTOKD_BCCD"]
    return data


def machine_name(device: str) -> str:
    """What computes: processor and card, without the host's name."""
    model = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    if device == "cuda":
        import torch

        return f"{torch.cuda.get_device_name()}, {model}"
    return f"{model}, one thread"


class Trainer:
    """Runs jobs in this process as a search's worker does, on one thread."""

    def __init__(self, config: ResolvedConfig, cache: Path, device: str, files: Path) -> None:
        from autokd.data import load_datasets
        from autokd.training import TrainingEvaluatorFactory

        self._config, self._cache, self._device = config, cache, device
        self._datasets = load_datasets(config.data, cache)
        self._factory = TrainingEvaluatorFactory(config, cache, files, self._datasets)
        self._resources = WorkerResources(1, device, 1.0 if device == "cuda" else 0.0)
        self._seeds: set[int] = set()
        self._evaluator: Evaluator | None = None

    def run(self, job: Job) -> Outcome:
        """Train; what it rests on (teacher, taps, warm start) is made before, so that no training is charged for it."""
        from autokd.runtime import contained

        self._prepare(job)
        assert self._evaluator is not None
        training = contained(self._evaluator, job)
        began = time.process_time()
        while True:
            try:
                next(training)
            except StopIteration as end:
                outcome: Outcome = end.value
                return self._in_quiet_seconds(outcome, time.process_time() - began)

    def _in_quiet_seconds(self, outcome: Outcome, cpu_seconds: float) -> Outcome:
        """On a CPU: the seconds that the thread itself took, whatever else the machine was doing."""
        if self._device != "cpu" or outcome.seconds <= 0:
            return outcome
        share = cpu_seconds / outcome.seconds

        def quiet(metrics: Mapping[str, float]) -> dict[str, float]:
            return {name: value * share if name == TRAIN_SECONDS else value for name, value in metrics.items()}

        reports = tuple(replace(r, seconds=r.seconds * share, metrics=quiet(r.metrics)) for r in outcome.reports)
        return replace(outcome, seconds=cpu_seconds, reports=reports, metrics=quiet(outcome.metrics))

    def _prepare(self, job: Job) -> None:
        from autokd.training import prepare

        is_first = not self._seeds
        if is_first:
            self._evaluator = self._factory(self._resources)
        if job.seed not in self._seeds:
            prepare(self._config, self._datasets, self._cache, seeds=(job.seed,), device=self._device)
            self._seeds.add(job.seed)
        if is_first and self._evaluator is not None:
            # An epoch that counts for nothing: it opens the data and the teacher's taps.
            spec = job.spec or next(iter(enumerate_specs(self._config.space)))
            opening = self._evaluator.evaluate(Job("opening", spec, "proxy", job.seed))
            next(opening, None)
            opening.close()
