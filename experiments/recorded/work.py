"""Trains a list of jobs into a scratch folder, beside any number of other processes."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from autokd.benchmark import current_commit
from autokd.config import ResolvedConfig
from autokd.outcomes import Job
from recorded.scratch import Scratch
from recorded.trainer import Trainer, machine_name

SHOWN = ("val_ap", "test_ap", "ap")


def record(
    config: ResolvedConfig,
    jobs: Sequence[Job],
    folder: Path,
    cache: Path,
    *,
    minutes: float = math.inf,
    run_dir: Path | None = None,
) -> None:
    """Train those of ``jobs``, all of one recipe, that nobody is at and none has ended; begin none after ``minutes``.

    run_dir: of the search whose promoted student teaches, if a job names one.
    """
    scratch = Scratch(folder, config, sorted({job.recipe for job in jobs}))
    if {job.id for job in jobs} <= scratch.finished_ids():
        return
    ends = time.monotonic() + 60 * minutes
    about = {"commit": current_commit(), "machine": machine_name("cpu")}
    with tempfile.TemporaryDirectory(prefix="autokd-record-") as files:
        trainer = Trainer(config, cache, "cpu", run_dir or Path(files))
        for job in jobs:
            if time.monotonic() > ends:
                return
            with scratch.claim(job) as is_ours:
                if is_ours:
                    outcome = replace(trainer.run(job), artifacts={})
                    scratch.save(outcome, about)
                    shown = {name: round(outcome.metrics[name], 4) for name in SHOWN if name in outcome.metrics}
                    print(job.id, outcome.status, outcome.cause or "", shown, f"{outcome.seconds:.0f} s", flush=True)
