"""How far this run's own trainings bear the proxy out."""

from __future__ import annotations

import math
from collections.abc import Sequence

from scipy.special import ndtri
from scipy.stats import kendalltau

from autokd.storage import Entry, ProxyFidelity, Race

MIN_DISTILLERS = 4
"""Of three, a random order is the right one in one case of six."""

CONFIDENCE = 0.95


def proxy_fidelity(entries: Sequence[Entry], race: Race | None = None) -> ProxyFidelity:
    """Kendall's tau-b between proxy reward and mean val AP, over the distinct distillers that have both: entries, and
    the finalists of ``race`` that were trained in full.

    "none" is left out: that distilling beats not distilling says nothing about ranking distillers. The reward is that
    of a distiller's trial (one seed), by which the search went.
    """
    pairs: dict[str, tuple[float, float]] = {}
    for entry in entries:
        val_ap = mean(entry.val_ap)
        if entry.spec and entry.proxy_reward is not None and val_ap is not None:
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
        return ProxyFidelity(pairs=count, note="All were level by the proxy or in full: there is no order to compare.")
    low, high = tau_interval(tau, count)
    note = (
        f"Over {count} distillers only, and not of random ones: finalists are there because the proxy favoured them, "
        'the others are published presets; "none" is not counted. Noise of the full trainings counts as the proxy\'s.'
    )
    return ProxyFidelity(kendall_tau=tau, pairs=count, low=low, high=high, note=note)


def tau_interval(tau: float, count: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """A conservative interval of the population's tau, from that of a sample of ``count``.

    Whatever the distribution, Var(t) <= 2 (1 - tau^2) / n (Daniels and Kendall, Biometrika 34, 1947); the interval
    holds every tau with |t - tau| <= z sqrt(2 (1 - tau^2) / n), the roots of a quadratic, as Wilson's does for a
    share. A bootstrap would be of no use with so few: where the two orders agree, they agree in every resample, and
    its interval is the point 1.
    """
    c = 2 * float(ndtri(0.5 + confidence / 2)) ** 2 / count
    root = math.sqrt(max(0.0, c * (1 + c - tau**2)))
    return max(-1.0, (tau - root) / (1 + c)), min(1.0, (tau + root) / (1 + c))


def mean(values: Sequence[float | None]) -> float | None:
    """Mean of what is known; None where nothing is."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


__all__ = ["MIN_DISTILLERS", "mean", "proxy_fidelity", "tau_interval"]
