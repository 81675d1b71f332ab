"""Distillers that are trained in full: "none", the presets and the searched one, under one recipe and equal seeds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autokd.config import FullRecipe
from autokd.jobs import NO_DISTILLATION, Job, JobId, Outcome, job_digest, make_job
from autokd.metrics import VAL_AP
from autokd.presets import load_distiller
from autokd.spec import DistillerSpec


@dataclass(frozen=True)
class NamedDistiller:
    """A distiller under the name that it has in the results.

    Args:
        name: "none", a preset's name, "searched", or the stem of a file.
        spec: the distiller; None: training without distillation.
        promoted: digest of an earlier trial's student that teaches too; empty: none does.
    """

    name: str
    spec: DistillerSpec | None
    promoted: str = ""

    @property
    def digest(self) -> str:
        """Digest of what the student learns from: ``Job.digest``."""
        return job_digest(self.spec, self.promoted)

    def jobs(self, seeds: Sequence[int]) -> list[Job]:
        """Return one full training for each seed; distillers of equal digest share theirs.

        Args:
            seeds: training seeds.
        """
        return [make_job(self.spec, "full", seed, self.promoted) for seed in seeds]

    def outcomes(self, outcomes: Mapping[str, Outcome], seeds: Sequence[int]) -> list[Outcome]:
        """Return the outcomes of this distiller's full trainings, in the order of the seeds.

        Args:
            outcomes: outcomes by job id, those of other distillers too.
            seeds: training seeds.
        """
        return [outcomes[str(JobId("full", self.digest, seed))] for seed in seeds]


def baseline_distillers(recipe: FullRecipe, family: str | None = None) -> list[NamedDistiller]:
    """Return "none" first, then the recipe's other baselines at the gradient ratio that the recipe gives them.

    Args:
        recipe: recipe of the full trainings.
        family: family of the pair's student, which chooses the weights of presets; None: of none, or unknown.
    """
    found = [NamedDistiller(NO_DISTILLATION, None)]
    for name in recipe.baselines:
        if name == NO_DISTILLATION:
            continue
        spec = load_distiller(name, family)
        if recipe.baseline_gradient_ratio != "published":
            spec = spec.with_gradient_ratio(float(recipe.baseline_gradient_ratio))
        found.append(NamedDistiller(Path(name).stem, spec))
    return found


def best_on_val(
    distillers: Sequence[NamedDistiller], outcomes: Mapping[str, Outcome], seeds: Sequence[int]
) -> NamedDistiller:
    """Return the distiller with the greatest mean val AP over its finished trainings; test AP is not looked at.

    Trainings whose every term was inactive do not count: they are trainings of "none" under another name.

    Args:
        distillers: candidates; the first wins a tie.
        outcomes: outcomes of their full trainings, by job id.
        seeds: training seeds.
    """

    def mean_val_ap(distiller: NamedDistiller) -> float:
        finished = [o for o in distiller.outcomes(outcomes, seeds) if o.status == "finished" and not o.is_inactive]
        values = [outcome.metrics[VAL_AP] for outcome in finished]
        return statistics.fmean(values) if values else float("-inf")

    return max(distillers, key=mean_val_ap)
