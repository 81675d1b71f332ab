"""What earlier runs learned: their distillers as records of the portfolio (``search.learn_from``)."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from optuna.trial import TrialState

from autokd.config import RunConfig
from autokd.errors import SpaceError
from autokd.jobs import NO_DISTILLATION, JobId
from autokd.metrics import VAL_AP
from autokd.portfolio import Portfolio, PortfolioRecord, load_portfolio
from autokd.space import AnySpace, PartSpace, summands_of
from autokd.spec import DistillerSpec
from autokd.storage import StudyFacts, open_existing, read_record

if TYPE_CHECKING:
    import optuna


def portfolio_of(config: RunConfig, space: AnySpace) -> Portfolio:
    """Return the portfolio of a run: AutoKD's own, without the pairs that the file leaves out, and earlier runs.

    Args:
        config: the run's configuration.
        space: the part of its space that the pair supplies.

    Raises:
        SpaceError: if ``search.portfolio_without`` names no pair of the portfolio.
        StorageError: if there is no run at an address of ``search.learn_from``.
    """
    portfolio = load_portfolio().without(config.search.portfolio_without)
    for address in config.search.learn_from:
        study = open_existing(address)
        for pair, records in _records_of(study, space).items():
            portfolio = portfolio.joined(pair, address, records)
    return portfolio


def _records_of(study: optuna.Study, space: AnySpace) -> dict[str, list[PortfolioRecord]]:
    """Return the distillers of a run that are sums of parts of a space: its full trainings, and its trials.

    Rewards have other units than gains in AP, so that trials count as those of a pair of their own.
    """
    if not isinstance(space, PartSpace):
        return {}
    specs = _specs(study)
    by_kind = {study.study_name: _full_gains(study, specs), f"{study.study_name} (trials)": _rewards(study, specs)}
    return {
        pair: list(_records(space, pair, gains, specs))
        for pair, gains in by_kind.items()
        if max(gains.values(), default=0)
    }


def _records(
    space: PartSpace, pair: str, gains: Mapping[str, float], specs: Mapping[str, DistillerSpec]
) -> Iterator[PortfolioRecord]:
    for digest, gain in gains.items():
        try:
            yield PortfolioRecord(tuple(summands_of(space, specs[digest])), {pair: gain})
        except SpaceError:
            continue


def _specs(study: optuna.Study) -> dict[str, DistillerSpec]:
    records = (read_record(trial) for trial in study.get_trials(deepcopy=False))
    return {record.digest: record.spec for record in records if record.spec is not None}


def _rewards(study: optuna.Study, specs: Mapping[str, DistillerSpec]) -> dict[str, float]:
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    values = {read_record(trial).digest: trial.value for trial in trials}
    return {digest: value for digest, value in values.items() if digest in specs and value is not None}


def _full_gains(study: optuna.Study, specs: Mapping[str, DistillerSpec]) -> dict[str, float]:
    """Return digest -> mean gain in val AP of its full trainings over those of none with the same seeds."""
    val_ap: dict[str, dict[int, float]] = {}
    for text, outcome in StudyFacts(study).finished_outcomes().items():
        try:
            job = JobId.parse(text)
        except ValueError:  # a rung
            continue
        if job.recipe == "full" and VAL_AP in outcome.metrics and not outcome.is_inactive:
            val_ap.setdefault(job.digest, {})[job.seed] = outcome.metrics[VAL_AP]
    none = val_ap.pop(NO_DISTILLATION, {})
    gains = {
        digest: [value - none[seed] for seed, value in found.items() if seed in none]
        for digest, found in val_ap.items()
        if digest in specs
    }
    return {digest: statistics.fmean(found) for digest, found in gains.items() if found}


__all__ = ["portfolio_of"]
