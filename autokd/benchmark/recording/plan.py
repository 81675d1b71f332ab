"""The trainings that a table needs, their order, and the rows that they give."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autokd.benchmark.table import BenchmarkRow
from autokd.config import ResolvedConfig
from autokd.errors import BenchmarkError
from autokd.jobs import NO_DISTILLATION, Job, JobId, Outcome, RecipeName, make_job
from autokd.space import PartSpace, enumerate_specs
from autokd.spec import DistillerSpec

RECIPES: tuple[RecipeName, ...] = ("proxy", "full")


@dataclass(frozen=True)
class Amount:
    """The trainings that are recorded beyond every spec with seed 0."""

    seeded: int = 108
    """Specs, a uniform sample of the space, that are trained with every seed of ``seeds``."""
    best: int = 12
    """Specs with the best val AP that are trained with these seeds as well."""
    seeds: tuple[int, ...] = (1, 2)
    none_seeds: int = 8
    """Seeds, from 0 on, of the training without distillation."""


def shuffled_specs(config: ResolvedConfig) -> list[DistillerSpec]:
    """Return every spec of the space in the order of recording.

    The order is that of a hash: it never changes, and whatever is recorded first is a uniform sample of the space.
    """
    if isinstance(config.space, PartSpace):
        raise BenchmarkError(
            "A space of sums of parts is too large for a table of all of it. Give 'space' with the keys of operators."
        )
    return sorted(enumerate_specs(config.space), key=lambda s: hashlib.sha256(f"order-{s.digest}".encode()).digest())


def planned_jobs(
    specs: Sequence[DistillerSpec],
    amount: Amount,
    outcomes: Mapping[str, Outcome],
    recipes: Sequence[RecipeName] = RECIPES,
) -> list[Job]:
    """Return all trainings of a table, each once, in the order of work.

    Args:
        specs: specs of the space, as ``shuffled_specs`` orders them.
        amount: further seeds.
        outcomes: known outcomes by job id. The best specs join as soon as every spec has a full training with seed 0.
        recipes: recipes of the trainings.
    """
    jobs = [make_job(spec, recipe, 0) for spec in [None, *specs] for recipe in recipes]
    for seed in amount.seeds:
        jobs += [make_job(spec, recipe, seed) for spec in [None, *specs[: amount.seeded]] for recipe in recipes]
    jobs += [make_job(None, recipe, seed) for seed in range(amount.none_seeds) for recipe in recipes]
    full = {spec: outcomes.get(make_job(spec, "full", 0).id) for spec in specs}
    if all(outcome is not None for outcome in full.values()):
        score = {spec: outcome.metrics.get("val_ap", -1.0) for spec, outcome in full.items() if outcome is not None}
        best = sorted(specs, key=lambda spec: -score[spec])[: amount.best]
        jobs += [make_job(spec, recipe, seed) for seed in amount.seeds for spec in best for recipe in recipes]
    return list({job.id: job for job in jobs}.values())


def rows_of(specs: Sequence[DistillerSpec], outcomes: Mapping[str, Outcome]) -> list[BenchmarkRow]:
    """Return the rows that the outcomes give, "none" first; specs without any outcome have no row."""
    by_spec: dict[str, dict[RecipeName, dict[int, Outcome]]] = {}
    for job_id, outcome in outcomes.items():
        identity = JobId.parse(job_id)
        found = by_spec.setdefault(identity.digest, {"proxy": {}, "full": {}})
        found[identity.recipe][identity.seed] = outcome
    rows = []
    for spec in [None, *specs]:
        found = by_spec.get(NO_DISTILLATION if spec is None else spec.digest, {})
        if found:
            rows.append(BenchmarkRow(spec, found["full"], found["proxy"]))
    return rows
