"""Distillers whose worth by full training is on record."""

from __future__ import annotations

import hashlib
import json
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autokd.benchmark import Header, load_benchmark
from autokd.jobs import JobId, Outcome
from autokd.presets import load_distiller
from autokd.spec import DistillerSpec

EXPERIMENTS = Path(__file__).parent.parent
TABLE = EXPERIMENTS / "distiller_benchmark" / "table.jsonl.gz"
KINDS = ("ratio", "published")
"""Of weights: a gradient ratio that a preset's terms share, or those of its paper."""
RATIO = 40.0
"""Shared by a preset's terms, in experiments/presets."""
LEFT_OUT = ("mgd", "fbkd", "gram")
"""Presets whose steps cost several times the others'; gram@ratio stays, as the worst of all."""
TOO_SLOW = {f"{name}@{kind}" for name in LEFT_OUT for kind in KINDS} - {"gram@ratio"}


@dataclass(frozen=True)
class Entry:
    """A distiller and the val AP of its full trainings by seed. ``gradient_ratio``: what entries of one group share."""

    name: str
    spec: DistillerSpec
    truth: dict[int, float]
    gradient_ratio: str

    @property
    def mean(self) -> float:
        return sum(self.truth.values()) / len(self.truth)


def preset_entries() -> list[Entry]:
    """Presets at a ratio of 40 and with the weights of their papers, in an order that looks random and never
    changes."""
    truth: dict[str, dict[int, float]] = defaultdict(dict)
    for row in json.loads((EXPERIMENTS / "proxy_fidelity" / "presets_truth.json").read_text(encoding="utf-8")):
        if row["status"] == "finished":
            truth[row["name"]][row["seed"]] = row["metrics"]["val_ap"]
    return _preset_entries(truth)


def shapes_entries(presets: Sequence[str], full: Mapping[str, Outcome]) -> list[Entry]:
    """Such entries of ``presets``, with what ``full``, job id -> outcome, says of them so far."""
    truth: dict[str, dict[int, float]] = {f"{name}@{kind}": {} for name in presets for kind in KINDS}
    for job_id, outcome in full.items():
        identity = JobId.parse(job_id)
        if identity.digest in truth and outcome.status == "finished":
            truth[identity.digest][identity.seed] = outcome.metrics["val_ap"]
    return _preset_entries(truth)


def _preset_entries(truth: Mapping[str, dict[int, float]]) -> list[Entry]:
    entries = []
    for name in sorted(truth.keys() - TOO_SLOW, key=lambda name: hashlib.sha256(name.encode()).digest()):
        preset, _, kind = name.partition("@")
        if kind in KINDS:
            spec = load_distiller(preset)
            entries.append(
                Entry(name, spec if kind == "published" else spec.with_gradient_ratio(RATIO), truth[name], kind)
            )
    return entries


def table_proxies() -> tuple[dict[str, Outcome], float, Header]:
    """The table's own proxy trainings with seed 0, as ``study.py`` names its jobs, the median seconds of a full
    training, and what the table says of itself."""
    table = load_benchmark(TABLE)
    outcomes = {str(JobId("proxy", row.digest, 0)): row.outcome("proxy", 0) for row in table}
    outcomes[str(JobId("proxy", "", 0))] = table.none.outcome("proxy", 0)
    return outcomes, statistics.median(row.outcome("full", 0).seconds for row in table), table.header


def table_entries() -> list[Entry]:
    """Rows of the recorded table in its own order, which is a uniform sample of the space."""
    table = load_benchmark(TABLE)
    return [
        Entry(row.digest, row.spec, dict(row.values("val_ap")), f"{row.spec.terms[0].weight.value:g}")
        for row in table
        if row.spec is not None and row.values("val_ap")
    ]
