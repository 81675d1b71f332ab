"""A table of distillers, recorded: every spec of a space, trained in full and by the proxy.

Any number of processes may call ``record_table`` on one scratch folder; each takes the next training that no process
holds, and one that is interrupted loses the training under way. Machines without a common disk record parts of the
table into folders of their own, which ``collect_table`` merges.
"""

from __future__ import annotations

import math
import statistics
import tempfile
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from autokd.benchmark.file import save_benchmark
from autokd.benchmark.identity import current_commit, make_header
from autokd.benchmark.recording.machine import machine_name
from autokd.benchmark.recording.plan import RECIPES, Amount, planned_jobs, rows_of, shuffled_specs
from autokd.benchmark.recording.scratch import Scratch
from autokd.benchmark.recording.trainer import Trainer
from autokd.benchmark.table import DistillerBenchmark
from autokd.config import ResolvedConfig
from autokd.data import content_of
from autokd.detectors import pair_of
from autokd.errors import BenchmarkError
from autokd.jobs import Job, JobId, Outcome, RecipeName
from autokd.spec import DistillerSpec

MAX_FAILURES = 3
"""Trainings in a row that fail for a reason outside their distiller, after which a process gives up."""
SHOWN_METRICS = ("val_ap", "ap", "cka")


@dataclass(frozen=True)
class Part:
    """The share of a table that one scratch folder records: part ``index`` (from 0) of ``count``."""

    index: int = 0
    count: int = 1

    def has(self, job: Job) -> bool:
        """Return whether the job is of this part; all trainings of one spec are of one part."""
        return zlib.crc32(JobId.parse(job.id).digest.encode()) % self.count == self.index


@dataclass(frozen=True)
class Recorded:
    """Work of one process: trainings that it ended, and whether it stopped because its time was over."""

    num_trainings: int
    is_time_over: bool


def record_table(
    config: ResolvedConfig,
    amount: Amount,
    folder: Path,
    cache_dir: Path,
    *,
    recipes: Sequence[RecipeName] = RECIPES,
    device: str = "cpu",
    minutes: float = math.inf,
    part: Part = Part(),
) -> Recorded:
    """Train what is left of a table; print a line for each training.

    Args:
        config: space, data, pair and recipes.
        amount: trainings beyond every spec with seed 0.
        folder: scratch folder that all processes share.
        cache_dir: folder of trained teachers and their cached taps.
        recipes: recipes to train.
        device: "cpu" or "cuda".
        minutes: time after which no further training is begun.
        part: share of the table that this folder records.

    Raises:
        BenchmarkError: if the pair cannot supply all of the space, the folder was begun for something else, or
            ``MAX_FAILURES`` trainings in a row failed for a reason outside their distiller.
    """
    require_supply(config)
    scratch, specs = Scratch(folder, config, recipes), shuffled_specs(config)
    about = {"commit": current_commit(), "machine": machine_name(device)}
    ends = time.monotonic() + 60 * minutes
    num_done = num_failed_in_row = 0
    failed_here: set[str] = set()
    with tempfile.TemporaryDirectory(prefix="autokd-record-") as files:
        trainer = Trainer(config, cache_dir, device, Path(files))
        while (job := _next_job(scratch, specs, amount, recipes, part, failed_here)) is not None:
            if time.monotonic() > ends:
                return Recorded(num_done, is_time_over=True)
            with scratch.claim(job) as is_ours:
                if not is_ours:
                    continue
                outcome = replace(trainer.run(job), artifacts={}, run_dir="", worker=about["machine"])
                is_result = scratch.save(outcome, about)
            print(_line(outcome), flush=True)
            if is_result:
                num_done, num_failed_in_row = num_done + 1, 0
                continue
            failed_here.add(job.id)
            num_failed_in_row += 1
            if num_failed_in_row >= MAX_FAILURES:
                raise BenchmarkError(
                    f"{num_failed_in_row} trainings in a row failed ({outcome.cause}); {folder / 'failed'} has them. "
                    f"The last one: {outcome.message}"
                )
    return Recorded(num_done, is_time_over=False)


def _line(outcome: Outcome) -> str:
    scores = ", ".join(f"{n} {outcome.metrics[n]:.4f}" for n in SHOWN_METRICS if n in outcome.metrics)
    return f"{outcome.job_id} {outcome.status} {outcome.cause or ''} {outcome.seconds:.1f} s {scores}"


def require_supply(config: ResolvedConfig) -> None:
    """Check that the pair and its data supply all of the space.

    Raises:
        BenchmarkError: if they lack a part.
        DataError: if the annotations cannot be read.
    """
    _, reasons = pair_of(config, content_of(config.data)).part_of(config.space)
    if reasons:
        raise BenchmarkError(
            "the table must hold the whole space, but this pair lacks a part of it: " + "; ".join(reasons) + ". "
            "Leave that out of the file."
        )


def _next_job(
    scratch: Scratch,
    specs: Sequence[DistillerSpec],
    amount: Amount,
    recipes: Sequence[RecipeName],
    part: Part,
    failed_here: set[str],
) -> Job | None:
    """Return the first training of our part that has not ended, no process holds, and has not failed here before."""
    left_out = scratch.finished_ids() | failed_here
    # The best specs, which join last, follow from the outcomes; reading all of them takes long, so it is done only
    # when nothing else is left.
    for is_known in (False, True):
        outcomes = scratch.read()[0] if is_known else {}
        for job in planned_jobs(specs, amount, outcomes, recipes):
            if part.has(job) and job.id not in left_out and not scratch.is_claimed(job):
                return job
    return None


def status_lines(
    config: ResolvedConfig, amount: Amount, folder: Path, *, recipes: Sequence[RecipeName] = RECIPES
) -> list[str]:
    """Return what is recorded, what runs, and the hours of one process that are left, as lines of text.

    Raises:
        BenchmarkError: if the folder was begun with another space or version of the training.
    """
    scratch, specs = Scratch(folder, config), shuffled_specs(config)
    outcomes, commits, machines = scratch.read()
    jobs = planned_jobs(specs, amount, outcomes, recipes)
    lines = [f"{len(specs)} specs; commits: {', '.join(sorted(commits))}; machines: {'; '.join(sorted(machines))}"]
    hours_left = 0.0
    for recipe in recipes:
        of_recipe = [job for job in jobs if job.recipe == recipe]
        done = [outcomes[job.id] for job in of_recipe if job.id in outcomes]
        seconds = statistics.median(outcome.seconds for outcome in done) if done else 0.0
        hours_left += seconds * (len(of_recipe) - len(done)) / 3600
        num_running = sum(scratch.is_claimed(job) for job in of_recipe if job.id not in outcomes)
        lines.append(
            f"{recipe}: {len(done)} of {len(of_recipe)} done, {sum(o.status == 'failed' for o in done)} of them "
            f"failed, {num_running} running, median {seconds:.1f} s"
        )
    return [*lines, f"left: {hours_left:.1f} hours of one process; {scratch.num_failed()} to try again"]


def collect_table(config: ResolvedConfig, folders: Sequence[Path], path: Path) -> DistillerBenchmark:
    """Write the table of everything that the scratch folders hold.

    Args:
        config: space, data, pair and recipes.
        folders: scratch folders; where two have one training, the first one's counts.
        path: file of the table.

    Raises:
        BenchmarkError: if nothing is recorded yet, or a folder was begun for something else.
    """
    specs = shuffled_specs(config)
    outcomes: dict[str, Outcome] = {}
    commits: set[str] = set()
    machines: set[str] = set()
    for folder in folders:
        begun = Scratch(folder, config).begun_recipes()
        found, its_commits, its_machines = Scratch(folder, config, begun).read()
        outcomes, commits, machines = found | outcomes, commits | its_commits, machines | its_machines
    if not outcomes:
        raise BenchmarkError(
            f"{', '.join(map(str, folders))}: no training is recorded there. Run 'autokd benchmark record' first."
        )
    header = make_header(config, commits=sorted(commits), machines=sorted(machines))
    table = DistillerBenchmark(header, rows_of(specs, outcomes), str(path))
    save_benchmark(path, table)
    return table
