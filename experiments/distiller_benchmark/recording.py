"""Which trainings a table needs, in which order, and the rows that they give."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autokd.benchmark import BenchmarkRow
from autokd.config import NO_DISTILLATION, ResolvedConfig
from autokd.outcomes import Job, Outcome, RecipeName
from autokd.space import enumerate_specs
from autokd.spec import DistillerSpec

RECIPES: tuple[RecipeName, ...] = ("proxy", "full")


@dataclass(frozen=True)
class Amount:
    """How much is recorded beyond every spec with seed 0: ``seeded`` specs, a uniform sample, with every seed of
    ``seeds``, the ``best`` by then as well, and "none" with ``none_seeds`` seeds."""

    seeded: int = 108
    best: int = 12
    seeds: tuple[int, ...] = (1, 2)
    none_seeds: int = 8


def job_of(spec: DistillerSpec | None, recipe: RecipeName, seed: int) -> Job:
    return Job(f"{recipe}-{NO_DISTILLATION if spec is None else spec.digest}-s{seed}", spec, recipe, seed)


def shuffled_specs(config: ResolvedConfig) -> list[DistillerSpec]:
    """Every spec of the space in an order that looks random and never changes: what is recorded first is a uniform
    sample of the space."""
    return sorted(enumerate_specs(config.space), key=lambda s: hashlib.sha256(f"order-{s.digest}".encode()).digest())


def planned_jobs(
    specs: Sequence[DistillerSpec],
    amount: Amount,
    outcomes: Mapping[str, Outcome],
    recipes: Sequence[RecipeName] = RECIPES,
) -> list[Job]:
    """All trainings of a table by ``recipes``, in the order of work. The best specs join when all are trained in full
    with seed 0."""
    jobs = [job_of(spec, recipe, 0) for spec in [None, *specs] for recipe in recipes]
    for seed in amount.seeds:
        jobs += [job_of(spec, recipe, seed) for spec in [None, *specs[: amount.seeded]] for recipe in recipes]
    jobs += [job_of(None, recipe, seed) for seed in range(amount.none_seeds) for recipe in recipes]
    full = {spec: outcomes.get(job_of(spec, "full", 0).id) for spec in specs}
    if all(outcome is not None for outcome in full.values()):
        score = {spec: outcome.metrics.get("val_ap", -1.0) for spec, outcome in full.items() if outcome is not None}
        best = sorted(specs, key=lambda spec: -score[spec])[: amount.best]
        jobs += [job_of(spec, recipe, seed) for seed in amount.seeds for spec in best for recipe in recipes]
    return list({job.id: job for job in jobs}.values())


def rows_of(specs: Sequence[DistillerSpec], outcomes: Mapping[str, Outcome]) -> list[BenchmarkRow]:
    """The rows that the outcomes give, "none" first; specs without any have no row."""
    by_spec: dict[str, dict[RecipeName, dict[int, Outcome]]] = {}
    for job_id, outcome in outcomes.items():
        recipe, digest, seed = job_id.split("-")
        found = by_spec.setdefault(digest, {"proxy": {}, "full": {}})
        found["proxy" if recipe == "proxy" else "full"][int(seed[1:])] = outcome
    rows = []
    for spec in [None, *specs]:
        found = by_spec.get(NO_DISTILLATION if spec is None else spec.digest, {})
        if found:
            rows.append(BenchmarkRow(spec, found["full"], found["proxy"]))
    return rows
