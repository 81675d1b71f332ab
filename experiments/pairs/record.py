"""Records a suite of pairs of detectors: none, presets at several strengths and sums of presets, each trained in full.

    python experiments/pairs/record.py teachers  # trains and measures the teachers: records/teachers.json
    python experiments/pairs/record.py work      # trains what no other process has taken, breadth first
    python experiments/pairs/record.py status
    python experiments/pairs/record.py collect   # a table for each pair: records/PAIR.jsonl.gz

Run it at the repository's root, in any number of processes, again and again; an interrupted process loses the training
it was at. ``--suite FOLDER`` records another folder's configs and candidates; of a pair of equal name and recipe each
training is made once. ``AUTOKD_DATA`` names the folder of the data sets if it is not ../shared/data, ``AUTOKD_CACHE``
the cache.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from autokd.benchmark import DistillerBenchmark, current_commit, make_header, save_benchmark
from autokd.benchmark.recording.curves import CurveTraining
from autokd.benchmark.recording.jobs import Recorder
from autokd.benchmark.recording.machine import machine_name
from autokd.benchmark.recording.plan import rows_of
from autokd.benchmark.recording.scratch import Scratch
from autokd.config import ResolvedConfig, load_config
from autokd.data import content_of, load_datasets
from autokd.detectors import pair_of, resolve
from autokd.documents import dump_yaml, load_document
from autokd.files import write_text_atomically
from autokd.jobs import NO_DISTILLATION, Job, make_job
from autokd.presets import load_preset
from autokd.spec import DistillerSpec
from autokd.training import prepare
from autokd.training.evaluator import TRAININGS

HERE = Path(__file__).parent
SCRATCH = Path(os.environ.get("AUTOKD_PAIRS_SCRATCH", "runs/pairs"))
CACHE = Path(os.environ.get("AUTOKD_CACHE", ".autokd_cache"))
DATA = Path(os.environ.get("AUTOKD_DATA", "../shared/data"))
SPACE = {"terms": 1, "sources": ["feature_map"], "transforms": {"normalize": ["none"]}, "distances": ["l2"]}
"""Nothing is searched here; a space that never changes keeps the records together when the default one does."""


# ------------------------------------------------------------------------------------------ candidates


def distiller_of(label: str, family: str | None) -> DistillerSpec | None:
    """Return the distiller that a label of candidates.yaml names, with the label as its name."""
    if label == NO_DISTILLATION:
        return None
    terms = [term for part in label.split("+") for term in _preset_at(part, family).terms]
    return DistillerSpec(tuple(terms), name=label)


def _preset_at(part: str, family: str | None) -> DistillerSpec:
    name, _, strength = part.partition("@")
    ratio, _, schedule = strength.partition(":")
    spec = load_preset(name, family)
    if ratio != "published":
        spec = spec.with_gradient_ratio(float(ratio))
    if not schedule:
        return spec
    terms = tuple(replace(term, weight=replace(term.weight, schedule=schedule)) for term in spec.terms)
    return replace(spec, terms=terms)


class Suite:
    """Pairs of detectors, each with a config file, and the trainings of all of them."""

    def __init__(self, folder: Path) -> None:
        """Read what is to be recorded; no data set is read yet.

        Args:
            folder: has ``configs/PAIR.yaml`` and ``candidates.yaml``, and gets ``records/``.
        """
        self.folder, self.records = folder, folder / "records"
        self.pairs = tuple(sorted(path.stem for path in (folder / "configs").glob("*.yaml")))
        stages = load_document(folder / "candidates.yaml").data["stages"]
        self.plan = [(label, seed) for stage in stages for seed in stage["seeds"] for label in stage["labels"]]
        """Label and seed of every training, in the order of work."""
        self.config_of, self.candidates_of = cache(self._config_of), cache(self._candidates_of)

    def _config_of(self, pair: str) -> ResolvedConfig:
        """Return the configuration of a pair."""
        os.environ.setdefault("AUTOKD_WEIGHTS_DIR", str(DATA / "weights"))
        data: dict[str, Any] = load_document(self.folder / "configs" / f"{pair}.yaml").data
        if "root" in data["data"]:
            data["data"]["root"] = str(DATA / Path(data["data"]["root"]).name)
        return resolve(load_config(dump_yaml(data | {"space": SPACE})))

    def _candidates_of(self, pair: str) -> dict[str, DistillerSpec | None]:
        """Return the distillers that a pair supplies, by label; of labels with one loss the first."""
        config, found, seen = self.config_of(pair), dict[str, DistillerSpec | None](), set[str]()
        supply = pair_of(config, content_of(config.data, CACHE), searching=False)
        for label in dict.fromkeys(label for label, _ in self.plan):
            spec = distiller_of(label, supply.family)
            digest = NO_DISTILLATION if spec is None else spec.digest
            if digest not in seen and (spec is None or not supply.lacks(spec)):
                found[label] = spec
                seen.add(digest)
        return found

    def jobs(self, pairs: Sequence[str]) -> Iterator[tuple[str, Job]]:
        """Yield the trainings of pairs breadth first: a label and seed of each pair before the next."""
        for label, seed in self.plan:
            for pair in pairs:
                if label in self.candidates_of(pair):
                    yield pair, make_job(self.candidates_of(pair)[label], "full", seed)


# -------------------------------------------------------------------------------------------- commands


def work(suite: Suite, pairs: Sequence[str], minutes: float) -> None:
    """Train, until nothing is left or the time is over."""
    ends = time.monotonic() + 60 * minutes
    trainings = TRAININGS | {"full": CurveTraining}
    recorders = {pair: Recorder(suite.config_of(pair), SCRATCH / pair, CACHE, trainings=trainings) for pair in pairs}
    for pair, job in suite.jobs(pairs):
        if time.monotonic() > ends:
            return
        recorder = recorders[pair]
        if job.id not in recorder.scratch.finished_ids():
            name = NO_DISTILLATION if job.spec is None else job.spec.name
            print(f"{time.strftime('%H:%M:%S')} {pair} {name}", end=" ", flush=True)
            recorder.record(job)


def teachers(suite: Suite, pairs: Sequence[str]) -> None:
    """Train, measure and write down the teacher of each pair."""
    path = suite.records / "teachers.json"
    for pair in pairs:
        config = suite.config_of(pair)
        score = prepare(config, load_datasets(config.data, CACHE), CACHE).score
        found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        found[pair] = {
            "val_ap": round(score.val_ap, 6),
            "test_ap": round(score.test_ap, 6),
            "val_per_class": {name: round(ap, 4) for name, ap in score.val_per_class.items()},
            "commit": current_commit(),
            "machine": machine_name("cpu"),
        }
        suite.records.mkdir(exist_ok=True)
        write_text_atomically(path, json.dumps(dict(sorted(found.items())), indent=1) + "\n")
        print(time.strftime("%H:%M:%S"), pair, found[pair], flush=True)


def status(suite: Suite, pairs: Sequence[str]) -> None:
    """Print what is recorded of each pair and what is not."""
    for pair in pairs:
        jobs = [job for _, job in suite.jobs([pair])]
        outcomes, commits, _ = Scratch(SCRATCH / pair, suite.config_of(pair)).read()
        done = [outcomes[job.id] for job in jobs if job.id in outcomes]
        seconds = sorted(outcome.seconds for outcome in done if outcome.status == "finished")
        median = seconds[len(seconds) // 2] if seconds else math.nan
        left = (len(jobs) - len(done)) * median / 3600
        print(f"{pair}: {len(done)} of {len(jobs)}, median {median:.0f} s, {left:.1f} h left; {sorted(commits)}")


def collect(suite: Suite, pairs: Sequence[str]) -> None:
    """Write the table of each pair that something is recorded of."""
    suite.records.mkdir(exist_ok=True)
    for pair in pairs:
        config = suite.config_of(pair)
        outcomes, commits, machines = Scratch(SCRATCH / pair, config, ["full"]).read()
        wanted = {job.id for _, job in suite.jobs([pair])}
        specs = [spec for spec in suite.candidates_of(pair).values() if spec is not None]
        rows = rows_of(specs, {job_id: outcome for job_id, outcome in outcomes.items() if job_id in wanted})
        if rows:
            header = make_header(config, commits=sorted(commits), machines=sorted(machines))
            path = suite.records / f"{pair}.jsonl.gz"
            save_benchmark(path, DistillerBenchmark(header, rows, str(path)))
            print(f"{path.name}: {len(rows)} rows, {sum(len(row.full) for row in rows)} trainings")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("command", choices=("teachers", "work", "status", "collect"))
    parser.add_argument("--suite", type=Path, default=HERE, help="folder with configs and candidates")
    parser.add_argument("--pairs", nargs="+", metavar="PAIR", help="left out: all of the suite")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no training after them; work only")
    options = parser.parse_args()
    suite = Suite(options.suite)
    pairs = options.pairs or suite.pairs
    if options.command == "work":
        work(suite, pairs, options.minutes)
    else:
        {"teachers": teachers, "status": status, "collect": collect}[options.command](suite, pairs)


if __name__ == "__main__":
    main()
