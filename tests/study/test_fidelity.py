"""How far a run bears its proxy out: tau, its interval, and what is said where there is too little."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import optimize, stats

from autokd.storage import Entry, FinalistResult, Race
from autokd.study.fidelity import proxy_fidelity, tau_interval


def entry(name: str, reward: float | None, *val_ap: float | None, digest: str | None = None) -> Entry:
    spec = {} if name == "none" else {"terms": []}
    found = name if digest is None else digest
    return Entry(name=name, spec=spec, digest=found, seeds=range(len(val_ap)), val_ap=val_ap, proxy_reward=reward)


FOUR = [entry("a", 1.0, 0.30, 0.32), entry("b", 2.0, 0.33), entry("c", 3.0, 0.32), entry("d", 4.0, None, 0.36)]


def tau_b(pairs: list[tuple[float, float]]) -> float:
    """By its definition: concordant less discordant pairs, over the root of the pairs that are not tied."""
    signs = [(np.sign(p[0] - q[0]), np.sign(p[1] - q[1])) for p, q in itertools.combinations(pairs, 2)]
    return sum(x * y for x, y in signs) / np.sqrt(sum(x != 0 for x, _ in signs) * sum(y != 0 for _, y in signs))


def test_tau_is_that_of_reward_and_mean_val_ap():
    found = proxy_fidelity(FOUR)
    assert found.pairs == 4
    assert found.kendall_tau == pytest.approx(4 / 6)  # b and c alone stand the wrong way round
    assert found.low < found.kendall_tau < found.high <= 1
    assert found.note.startswith("Over 4 distillers, which are no random sample")


def test_ties_count_as_in_tau_b():
    tied = [*FOUR, entry("e", 4.0, 0.36), entry("f", 0.5, 0.36)]
    pairs = [(1, 0.31), (2, 0.33), (3, 0.32), (4, 0.36), (4, 0.36), (0.5, 0.36)]
    assert proxy_fidelity(tied).kendall_tau == pytest.approx(tau_b(pairs))


def test_finalists_trained_in_full_count_too_unless_they_are_entries():
    finalists = [FinalistResult(digest="d", rewards=(9.0, 1.0), full_val_ap=0.1)]
    finalists += [FinalistResult(digest="e", rewards=(2.5, 7.0), full_val_ap=0.40), FinalistResult(digest="f")]
    found = proxy_fidelity(FOUR, Race(finalists=tuple(finalists)))
    pairs = [(1, 0.31), (2, 0.33), (3, 0.32), (4, 0.36), (2.5, 0.40)]
    assert (found.kendall_tau, found.pairs) == (pytest.approx(tau_b(pairs)), 5)


def test_fewer_than_four_distillers_are_said_to_be_too_few():
    none = entry("none", 0.0, 0.2)
    twin = entry("searched", 3.0, 0.32, digest="c")
    not_tried = entry("cwd", None, 0.4)
    failed = entry("pkd", 1.5, None)
    found = proxy_fidelity([none, *FOUR[:3], twin, not_tried, failed])
    assert (found.kendall_tau, found.low, found.high, found.pairs) == (None, None, None, 3)
    assert found.note == (
        "3 distinct distillers were judged both by the proxy and in full; below 4 no rank correlation is given."
    )


def test_level_distillers_have_no_order():
    found = proxy_fidelity([entry(name, 1.0, 0.3) for name in "abcd"])
    assert (found.kendall_tau, found.pairs) == (None, 4)
    assert "no order" in found.note


@pytest.mark.parametrize(("tau", "count"), [(1.0, 4), (-1.0, 5), (0.0, 4), (0.6, 6), (2 / 3, 4), (-0.2, 40)])
def test_the_ends_of_the_interval_lie_where_the_bound_on_the_variance_puts_them(tau, count):
    low, high = tau_interval(tau, count)
    z = stats.norm.ppf(0.975)
    for end, other in ((low, -1.0), (high, 1.0)):
        assert -1 <= end <= 1
        if tau == other:
            assert end == pytest.approx(other)
        else:
            off = lambda t: abs(tau - t) - z * np.sqrt(2 * (1 - t**2) / count)  # noqa: E731
            assert end == pytest.approx(optimize.brentq(off, tau + 1e-6 * np.sign(other), other), abs=1e-9)


@pytest.mark.parametrize("rho", [0.0, 0.7, 0.95])
@pytest.mark.parametrize("count", [4, 8])
def test_the_interval_holds_the_true_tau_at_least_as_often_as_it_says(rho, count):
    """Normal pairs of correlation rho have tau = 2/pi arcsin(rho). 2000 samples: standard error below 0.5%."""
    rng = np.random.default_rng(count)
    truth = 2 / np.pi * np.arcsin(rho)
    samples = rng.multivariate_normal([0, 0], [[1, rho], [rho, 1]], size=(2000, count))
    signs = np.sign(samples[:, :, None, :] - samples[:, None, :, :]).prod(axis=3)
    taus = signs.sum(axis=(1, 2)) / (count * (count - 1))
    covered = [low <= truth <= high for low, high in (tau_interval(float(tau), count) for tau in taus)]
    assert np.mean(covered) > 0.95 - 0.015
