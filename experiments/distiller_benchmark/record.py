"""Records a table of distillers: every spec of a space, trained in full and by the proxy.

    python experiments/distiller_benchmark/record.py work --minutes 60
    python experiments/distiller_benchmark/record.py status
    python experiments/distiller_benchmark/record.py collect
    python experiments/distiller_benchmark/record.py check --rows 3

Run it at the repository's root. Any number of processes may ``work`` on one scratch folder; each takes the next
training that nobody holds, and one that is interrupted loses the training it was at. Machines without a common disk
take ``--part 1/2`` and ``--part 2/2`` into folders of their own, which ``collect`` merges.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import statistics
import sys
import tempfile
import time
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from recorded.scratch import Scratch
from recorded.trainer import Trainer, machine_name, read_config
from recording import RECIPES, Amount, planned_jobs, rows_of, shuffled_specs

from autokd.benchmark import DistillerBenchmark, current_commit, load_benchmark, make_header, save_benchmark
from autokd.config import ResolvedConfig
from autokd.errors import AutoKDError, BenchmarkError
from autokd.outcomes import Job, Outcome
from autokd.space import restrict_to_taps
from autokd.spec import DistillerSpec

MAX_FAILURES = 3
"""Trainings in a row that fail through no fault of their distiller, before a process gives up."""


# ---------------------------------------------------------------------------------------------- work


def work(options: argparse.Namespace) -> int:
    config, amount = read_config(options.config), amount_of(options)
    check_supply(config)
    scratch, specs = Scratch(options.scratch, config, options.recipes), shuffled_specs(config)
    about = {"commit": current_commit(), "machine": machine_name(options.device)}
    ends = time.monotonic() + 60 * options.minutes
    num_done = num_failed = 0
    failed: set[str] = set()
    with tempfile.TemporaryDirectory(prefix="autokd-record-") as files:
        trainer = Trainer(config, options.cache_dir, options.device, Path(files))
        while (job := _next_job(scratch, specs, amount, options, failed)) is not None:
            if time.monotonic() > ends:
                return _say(f"time is over after {num_done} trainings.")
            with scratch.claim(job) as is_ours:
                if not is_ours:
                    continue
                outcome = replace(trainer.run(job), artifacts={}, worker=about["machine"])
                counts = scratch.save(outcome, about)
            if not counts:
                failed.add(job.id)
            num_done, num_failed = num_done + counts, 0 if counts else num_failed + 1
            scores = ", ".join(f"{k} {outcome.metrics[k]:.4f}" for k in ("val_ap", "ap", "cka") if k in outcome.metrics)
            print(f"{job.id} {outcome.status} {outcome.cause or ''} {outcome.seconds:.1f} s {scores}", flush=True)
            if num_failed >= MAX_FAILURES:
                print(outcome.message, file=sys.stderr)
                return _say(
                    f"{num_failed} trainings in a row failed ({outcome.cause}); see {scratch.folder}/failed.", 1
                )
    return _say(f"nothing is left that nobody is at; {num_done} trainings done here.")


def check_supply(config: ResolvedConfig) -> None:
    """BenchmarkError if the pair cannot supply all of the space."""
    from autokd.detectors import taps_of

    _, reasons = restrict_to_taps(config.space, taps_of(config.student), taps_of(config.teacher))
    if reasons:
        raise BenchmarkError(
            "the table must hold the whole space, but this pair lacks a part of it: " + "; ".join(reasons) + ". "
            "Leave that out of the file."
        )


def _next_job(
    scratch: Scratch, specs: Sequence[DistillerSpec], amount: Amount, options: argparse.Namespace, failed: set[str]
) -> Job | None:
    """The first training of our part that is neither done, nor held by another, nor failed here before."""
    index, num_parts = options.part
    finished = scratch.finished_ids() | failed
    for known in (False, True):
        # Which specs are best, the last to join, is known where all are recorded; reading them costs more.
        outcomes = scratch.read()[0] if known else {}
        for job in planned_jobs(specs, amount, outcomes, options.recipes):
            ours = zlib.crc32(job.id.split("-")[1].encode()) % num_parts == index
            if ours and job.id not in finished and not scratch.is_claimed(job):
                return job
    return None


# ------------------------------------------------------------------------------------ status, collect


def status(options: argparse.Namespace) -> int:
    config = read_config(options.config)
    scratch, specs = Scratch(options.scratch, config), shuffled_specs(config)
    outcomes, commits, machines = scratch.read()
    jobs = planned_jobs(specs, amount_of(options), outcomes, options.recipes)
    print(f"{len(specs)} specs; commits: {', '.join(sorted(commits))}; machines: {'; '.join(sorted(machines))}")
    hours_left = 0.0
    for recipe in options.recipes:
        ours = [job for job in jobs if job.recipe == recipe]
        done = [outcomes[job.id] for job in ours if job.id in outcomes]
        seconds = statistics.median(outcome.seconds for outcome in done) if done else 0.0
        hours_left += seconds * (len(ours) - len(done)) / 3600
        print(
            f"{recipe}: {len(done)} of {len(ours)} done, {sum(o.status == 'failed' for o in done)} of them failed, "
            f"{sum(scratch.is_claimed(job) for job in ours if job.id not in outcomes)} running, median {seconds:.1f} s"
        )
    print(
        f"left: {hours_left:.1f} hours of one process; {len(list((scratch.folder / 'failed').iterdir()))} to try again"
    )
    return 0


def collect(options: argparse.Namespace) -> int:
    config = read_config(options.config)
    specs = shuffled_specs(config)
    outcomes: dict[str, Outcome] = {}
    commits: set[str] = set()
    machines: set[str] = set()
    for folder in options.folders or [options.scratch]:
        scratch = Scratch(folder, config)
        found, its_commits, its_machines = Scratch(folder, config, scratch.begun_recipes()).read()
        outcomes, commits, machines = found | outcomes, commits | its_commits, machines | its_machines
    if not outcomes:
        return _say("there is nothing to collect yet.", 1)
    header = make_header(config, commits=sorted(commits), machines=sorted(machines))
    table = DistillerBenchmark(header, rows_of(specs, outcomes))
    save_benchmark(options.table, table)
    partial = "" if len(table) == len(specs) else f" (partial: {len(specs)} in the space)"
    return _say(f"{options.table}: {len(table)} specs{partial}, {len(outcomes)} trainings, "
                f"{options.table.stat().st_size / 1000:.0f} kB")  # fmt: skip


# --------------------------------------------------------------------------------------------- check


def check(options: argparse.Namespace) -> int:
    """Train a few rows again and compare with what is recorded; 1 if one lies outside the noise."""
    config = read_config(options.config)
    table = load_benchmark(options.table, config=config, space=config.space)
    rows = random.Random(options.random_seed).sample(list(table), options.rows)
    metrics = {"proxy": ("val_loss", "cka"), "full": ("val_ap", "val_loss", "cka")}[options.recipe]
    num_outside = 0
    with tempfile.TemporaryDirectory(prefix="autokd-check-") as files:
        trainer = Trainer(config, options.cache_dir, options.device, Path(files))
        for row in [table.none, *rows]:
            recorded = row.outcome(options.recipe, 0)
            again = trainer.run(Job(f"check-{row.digest}", row.spec, options.recipe, 0))
            for metric in metrics:
                noise = seed_deviation(table, options.recipe, metric)
                difference = again.metrics[metric] - recorded.metrics[metric]
                is_outside = abs(difference) > 4 * noise
                num_outside += is_outside
                print(
                    f"{row.digest} {metric}: {recorded.metrics[metric]:.5f} recorded, {again.metrics[metric]:.5f} now; "
                    f"seeds deviate by {noise:.5f}{', OUTSIDE' if is_outside else ''}",
                    flush=True,
                )
    return _say(f"{num_outside} numbers outside four deviations", int(num_outside > 0))


def seed_deviation(table: DistillerBenchmark, recipe: str, metric: str) -> float:
    """Standard deviation between seeds of one spec, pooled over the specs with several."""
    rows = [list(row.values(metric, recipe).values()) for row in [table.none, *table]]  # type: ignore[arg-type]
    rows = [values for values in rows if len(values) > 1]
    freedom = sum(len(values) - 1 for values in rows)
    return (sum(statistics.variance(v) * (len(v) - 1) for v in rows) / freedom) ** 0.5 if freedom else 0.0


# ---------------------------------------------------------------------------------------------- main


def amount_of(options: argparse.Namespace) -> Amount:
    return Amount(options.seeded, options.best, tuple(options.seeds), options.none_seeds)


def _say(text: str, code: int = 0) -> int:
    print(text, file=sys.stderr if code else sys.stdout)
    return code


def _part(text: str) -> tuple[int, int]:
    number, _, parts = text.partition("/")
    if not (number.isdigit() and parts.isdigit() and 1 <= int(number) <= int(parts)):
        raise argparse.ArgumentTypeError(f"{text!r}: write 1/3, 2/3 or 3/3")
    return int(number) - 1, int(parts)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--config", type=Path, default=HERE / "space.yaml")
    common.add_argument("--scratch", type=Path, default=Path("runs/distiller_benchmark"), help="not committed")
    common.add_argument("--cache-dir", type=Path, default=Path(os.environ.get("AUTOKD_CACHE", ".autokd_cache")))
    common.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES), help="which trainings")
    common.add_argument("--table", type=Path, default=HERE / "table.jsonl.gz")
    common.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    common.add_argument("--seeded", type=int, default=Amount.seeded, help="specs with every further seed")
    common.add_argument("--best", type=int, default=Amount.best, help="and the best so many as well")
    common.add_argument("--seeds", type=int, nargs="*", default=Amount.seeds, help="further seeds")
    common.add_argument("--none-seeds", type=int, default=Amount.none_seeds)
    commands = parser.add_subparsers(dest="command", required=True)
    working = commands.add_parser("work", parents=[common])
    working.add_argument("--minutes", type=float, default=1e9)
    working.add_argument("--part", type=_part, default=(0, 1))
    commands.add_parser("status", parents=[common])
    collecting = commands.add_parser("collect", parents=[common])
    collecting.add_argument("folders", type=Path, nargs="*", help="scratch folders; left out: --scratch")
    checking = commands.add_parser("check", parents=[common])
    checking.add_argument("--rows", type=int, default=3)
    checking.add_argument("--recipe", choices=("proxy", "full"), default="proxy")
    checking.add_argument("--random-seed", type=int, default=None)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return {"work": work, "status": status, "collect": collect, "check": check}[options.command](options)
    except AutoKDError as error:
        return _say(str(error), 2)
    except KeyboardInterrupt:
        return _say("interrupted: the training under way is lost, all others are kept.", 130)


if __name__ == "__main__":
    sys.exit(main())
