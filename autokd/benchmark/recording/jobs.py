"""A list of jobs, trained into a scratch folder beside any number of other processes."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from autokd.benchmark.identity import current_commit
from autokd.benchmark.recording.machine import machine_name
from autokd.benchmark.recording.scratch import Scratch
from autokd.benchmark.recording.trainer import Trainer
from autokd.config import ResolvedConfig
from autokd.jobs import Job

SHOWN_METRICS = ("val_ap", "test_ap", "ap")


def record_jobs(
    config: ResolvedConfig,
    jobs: Sequence[Job],
    folder: Path,
    cache_dir: Path,
    *,
    minutes: float = math.inf,
    run_dir: Path | None = None,
) -> None:
    """Train the jobs that no other process holds and that have not ended; print a line for each.

    Args:
        config: data, pair and recipes of the jobs.
        jobs: trainings in the order of work.
        folder: scratch folder that all processes share.
        cache_dir: folder of trained teachers and their cached taps.
        minutes: time after which no further training is begun.
        run_dir: run directory of the search whose promoted student teaches, if a job names one.

    Raises:
        BenchmarkError: if the folder was begun with another space, recipe or version of the training.
    """
    scratch = Scratch(folder, config, sorted({job.recipe for job in jobs}))
    if {job.id for job in jobs} <= scratch.finished_ids():
        return
    ends = time.monotonic() + 60 * minutes
    about = {"commit": current_commit(), "machine": machine_name("cpu")}
    with tempfile.TemporaryDirectory(prefix="autokd-record-") as files:
        trainer = Trainer(config, cache_dir, "cpu", run_dir or Path(files))
        for job in jobs:
            if time.monotonic() > ends:
                return
            with scratch.claim(job) as is_ours:
                if is_ours:
                    # The files of this training go with the temporary folder, so the outcome names none.
                    outcome = replace(trainer.run(job), artifacts={}, run_dir="")
                    scratch.save(outcome, about)
                    shown = {n: round(outcome.metrics[n], 4) for n in SHOWN_METRICS if n in outcome.metrics}
                    print(job.id, outcome.status, outcome.cause or "", shown, f"{outcome.seconds:.0f} s", flush=True)
