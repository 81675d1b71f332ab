"""What is trained in full: "none", the presets and the searched distiller, under one recipe and the same seeds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autokd.config import FullRecipe
from autokd.metrics import VAL_AP
from autokd.outcomes import NO_DISTILLATION, Job, JobId, Outcome, lesson_digest, make_job
from autokd.presets import load_distiller
from autokd.spec import DistillerSpec


@dataclass(frozen=True)
class Entry:
    """A row of the results: a name and its distiller (None: no distillation)."""

    name: str
    spec: DistillerSpec | None
    promoted: str = ""
    """Digest of an earlier trial's student that teaches too."""

    @property
    def digest(self) -> str:
        """What the student learns from: ``Job.digest``."""
        return lesson_digest(self.spec, self.promoted)

    def jobs(self, seeds: Sequence[int]) -> list[Job]:
        """One full training a seed; entries of equal digest share theirs."""
        return [make_job(self.spec, "full", seed, self.promoted) for seed in seeds]

    def outcomes(self, outcomes: Mapping[str, Outcome], seeds: Sequence[int]) -> list[Outcome]:
        """Those of this entry, in the order of the seeds."""
        return [outcomes[str(JobId("full", self.digest, seed))] for seed in seeds]


def baseline_entries(recipe: FullRecipe) -> list[Entry]:
    """ "none" always, then the recipe's other baselines, presets at the strength that the recipe gives them."""
    entries = [Entry(NO_DISTILLATION, None)]
    for name in recipe.baselines:
        if name == NO_DISTILLATION:
            continue
        spec = load_distiller(name)
        if recipe.baseline_strength != "published":
            spec = spec.with_strength(float(recipe.baseline_strength))
        entries.append(Entry(Path(name).stem, spec))
    return entries


def winner_of(entries: Sequence[Entry], outcomes: Mapping[str, Outcome], seeds: Sequence[int]) -> Entry:
    """The entry with the greatest mean val AP over its finished trainings; test AP has no say."""

    def mean_val_ap(entry: Entry) -> float:
        values = [o.metrics[VAL_AP] for o in entry.outcomes(outcomes, seeds) if o.status == "finished"]
        return statistics.fmean(values) if values else float("-inf")

    return max(entries, key=mean_val_ap)
