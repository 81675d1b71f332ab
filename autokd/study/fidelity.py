"""Fidelity of the proxy: its rank correlation with the full trainings of the same run."""

from __future__ import annotations

import math
from collections.abc import Sequence

from scipy.special import ndtri
from scipy.stats import kendalltau

from autokd.storage import Entry, ProxyFidelity, Race

MIN_DISTILLERS = 4
"""Least number of distillers for a rank correlation: of three, one random order in six is the right one."""

CONFIDENCE = 0.95
"""Confidence of the interval of tau."""


def proxy_fidelity(entries: Sequence[Entry], race: Race | None = None) -> ProxyFidelity:
    """Return Kendall's tau-b between proxy reward and mean val AP, over the distinct distillers that have both.

    These are entries, and finalists that were trained in full. "none" is left out, as is a distiller whose every term
    was inactive: that distillation beats its absence
    says nothing about the ranking of distillers. The reward is that of a distiller's trial (one seed), since the search
    saw no other.

    Args:
        entries: entries of the results.
        race: race of the finalists; None: nothing was searched.
    """
    pairs: dict[str, tuple[float, float]] = {}
    for entry in entries:
        val_ap = mean(entry.val_ap)
        if entry.spec and not entry.is_inactive and entry.proxy_reward is not None and val_ap is not None:
            pairs.setdefault(entry.digest, (entry.proxy_reward, val_ap))
    for finalist in race.finalists if race is not None else ():
        if finalist.full_val_ap is not None:
            pairs.setdefault(finalist.digest, (finalist.rewards[0], finalist.full_val_ap))
    count = len(pairs)
    if count < MIN_DISTILLERS:
        note = (
            f"{count} distinct distillers were judged both by the proxy and in full; below {MIN_DISTILLERS} no rank "
            "correlation is given."
        )
        return ProxyFidelity(pairs=count, note=note)
    tau = float(kendalltau(*zip(*pairs.values(), strict=True)).statistic)
    if not math.isfinite(tau):
        return ProxyFidelity(pairs=count, note="All distillers are tied, by the proxy or in full: there is no order.")
    low, high = tau_interval(tau, count)
    note = (
        f"Over {count} distillers, which are no random sample: the finalists were selected by the proxy, the others "
        'are published presets; "none" is not counted. Noise of the full trainings lowers tau as errors of the proxy '
        "would."
    )
    return ProxyFidelity(kendall_tau=tau, pairs=count, low=low, high=high, note=note)


def tau_interval(tau: float, count: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return a conservative interval of the population's tau.

    Whatever the distribution, Var(t) <= 2 (1 - tau^2) / n (Daniels and Kendall, Biometrika 34, 1947); the interval
    holds every tau with |t - tau| <= z sqrt(2 (1 - tau^2) / n), the roots of a quadratic, as Wilson's does for a
    proportion. A bootstrap is useless for so few: if the two orders agree, they agree in every resample, and its
    interval is the point 1.

    Args:
        tau: Kendall's tau of the sample.
        count: size of the sample.
        confidence: confidence of the interval, below 1.
    """
    c = 2 * float(ndtri(0.5 + confidence / 2)) ** 2 / count
    root = math.sqrt(max(0.0, c * (1 + c - tau**2)))
    return max(-1.0, (tau - root) / (1 + c)), min(1.0, (tau + root) / (1 + c))


def mean(values: Sequence[float | None]) -> float | None:
    """Return the mean of the values that are known, or None if none is.

    Args:
        values: values of the seeds; None: the training failed.
    """
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


__all__ = ["MIN_DISTILLERS", "mean", "proxy_fidelity", "tau_interval"]
