"""Kendall's tau of proxies against full trainings: overall, at equal gradient ratio, beside the ceiling and the
baseline."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import kendalltau
from truths import Entry

from autokd.benchmark.markdown import markdown_table
from autokd.jobs import JobId, Outcome

SIGNS = {"val_loss": -1.0, "cka": 1.0, "ap": 1.0, "ap_50": 1.0, "ap_worst_class": 1.0}
REWARDS: dict[str, tuple[str, ...]] = {
    "val_loss": ("val_loss",),
    "cka": ("cka",),
    "ap": ("ap",),
    "ap_50": ("ap_50",),
    "ap_worst_class": ("ap_worst_class",),
    "val_loss + cka": ("val_loss", "cka"),
    "val_loss + ap_50": ("val_loss", "ap_50"),
    "val_loss + cka + ap": ("val_loss", "cka", "ap"),
    "parts of val_loss": ("parts",),
    "parts of val_loss + cka": ("parts", "cka"),
    "parts of val_loss + cka + ap": ("parts", "cka", "ap"),
}
"""Sums of standardized gains, as ``autokd.study.reward`` adds them. ``parts``: every part of the validation loss."""
NUM_RESAMPLES = 1000


def report(
    entries: Sequence[Entry], found: Mapping[str, Mapping[str, Outcome]], full_seconds: float, seeds: Sequence[int]
) -> dict[str, Any]:
    """Everything as plain data: ``ceiling``, ``gradient_ratio_only``, and a row for each report of a variant, by each
    of ``seeds`` for itself and by all of them together; without the rows for which fewer than 8 entries are there."""
    rows = []
    groups = [[seed] for seed in seeds] + [list(seeds)] * (len(seeds) > 1)
    for (name, outcomes), group in itertools.product(found.items(), groups):
        known = [e for e in entries if all(_is_there(outcomes, e, seed) for seed in group)]
        if len(known) < 8:
            continue
        runs = {e.name: [outcomes[_id(e, seed)] for seed in group] for e in known}
        num_reports = min(len(run.reports) for each in runs.values() for run in each)
        for epoch in range(1, num_reports + 1):
            cost = statistics.median(sum(run.reports[epoch - 1].seconds for run in each) for each in runs.values())
            about = {"variant": name, "epoch": epoch, "entries": len(known), "seeds": group}
            none = [outcomes[str(JobId("proxy", "", seed))].reports[epoch - 1].metrics["ap"] for seed in group]
            about |= {"cost": round(cost / full_seconds, 3), "none_ap": [round(ap, 4) for ap in none]}
            rows.append(about | _taus(known, runs, epoch))
    return {
        "ceiling": ceiling(entries),
        "gradient_ratio_only": gradient_ratio_only(entries),
        "full_seconds": round(full_seconds, 1),
        "variants": rows,
    }


SHOWN = ("val_loss", "cka", "ap", "val_loss + cka", "val_loss + cka + ap", "parts of val_loss + cka",
         "parts of val_loss + cka + ap")  # fmt: skip


def table(result: Mapping[str, Any]) -> list[str]:
    """Lines of Markdown: tau overall / at equal gradient ratio, for each reward; the mean over proxies of one seed
    each."""
    cells = []
    for (name, epoch), rows in rows_of_one_seed(result).items():
        cost = statistics.mean(row["cost"] for row in rows)
        taus = [_cell([row["tau"][reward] for row in rows if reward in row["tau"]]) for reward in SHOWN]
        cells.append((name, len(rows), epoch, f"{cost:.3f}", *taus))
    return markdown_table(("proxy", "seeds", "after epoch", "cost", *SHOWN), cells)


def rows_of_one_seed(result: Mapping[str, Any]) -> dict[tuple[str, int], list[Mapping[str, Any]]]:
    """(Form, epoch) -> its rows by one seed each, without that of all seeds together."""
    found: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for row in result["variants"]:
        if len(row["seeds"]) == 1:
            found.setdefault((row["variant"], row["epoch"]), []).append(row)
    return found


def _cell(taus: Sequence[Mapping[str, float]]) -> str:
    if not taus:
        return ""
    means = [statistics.mean(tau[which] for tau in taus) for which in ("all", "equal_gradient_ratio")]
    return f"{means[0]:.2f} / {means[1]:.2f}"


def _id(entry: Entry, seed: int) -> str:
    return str(JobId("proxy", entry.name.replace("-", "_"), seed))


def _is_there(outcomes: Mapping[str, Outcome], entry: Entry, seed: int) -> bool:
    outcome = outcomes.get(_id(entry, seed))
    return outcome is not None and outcome.status == "finished"


def _taus(known: Sequence[Entry], runs: Mapping[str, Sequence[Outcome]], epoch: int) -> dict[str, Any]:
    taus = {}
    recorded = {"parts", *next(iter(runs.values()))[0].reports[epoch - 1].metrics}
    for label, parts in REWARDS.items():
        if not recorded.issuperset(parts):
            continue
        columns = []
        for run_index in range(len(next(iter(runs.values())))):
            metrics = [runs[e.name][run_index].reports[epoch - 1].metrics for e in known]
            for part in parts:
                names = [k for k in metrics[0] if k.startswith("val_loss/")] if part == "parts" else [part]
                columns += [SIGNS.get(n, -1.0) * np.array([m[n] for m in metrics]) for n in names]
        score = np.sum([(column - column.mean()) / (column.std() or 1.0) for column in columns], axis=0)
        taus[label] = agreement(known, score)
    return {"tau": taus}


def agreement(entries: Sequence[Entry], score: np.ndarray) -> dict[str, Any]:
    """tau-b of ``score`` with the mean truth, its 95% interval by bootstrap over entries, and that within gradient
    ratios."""
    truth = np.array([e.mean for e in entries])
    rng = np.random.default_rng(0)
    draws = [kendalltau(score[i], truth[i]).statistic for i in rng.integers(0, len(truth), (NUM_RESAMPLES, len(truth)))]
    return {
        "all": _round(kendalltau(score, truth).statistic),
        "interval": [_round(q) for q in np.nanquantile(draws, [0.025, 0.975])],
        "equal_gradient_ratio": _round(within_gradient_ratios(entries, score)),
    }


def within_gradient_ratios(entries: Sequence[Entry], score: np.ndarray) -> float:
    """Kendall's tau-a over the pairs of entries that share their gradient ratio."""
    truth = np.array([e.mean for e in entries])
    agree = [
        np.sign(score[i] - score[j]) * np.sign(truth[i] - truth[j])
        for i, j in itertools.combinations(range(len(entries)), 2)
        if entries[i].gradient_ratio == entries[j].gradient_ratio
    ]
    return float(np.mean(agree)) if agree else float("nan")


def ceiling(entries: Sequence[Entry]) -> dict[str, Any]:
    """How well one full training ranks another of other seed: the mean over the pairs of seeds."""
    seeds = sorted({seed for e in entries for seed in e.truth})
    taus, within, count = [], [], 0
    for first, second in itertools.permutations(seeds, 2):
        known = [e for e in entries if first in e.truth and second in e.truth]
        if len(known) < 8:
            continue
        judged = [Entry(e.name, e.spec, {second: e.truth[second]}, e.gradient_ratio) for e in known]
        score = np.array([e.truth[first] for e in known])
        taus.append(kendalltau(score, [e.mean for e in judged]).statistic)
        within.append(within_gradient_ratios(judged, score))
        count = len(known)
    if not taus:
        return {}
    return {"all": _round(np.mean(taus)), "equal_gradient_ratio": _round(np.mean(within)), "entries": count}


def gradient_ratio_only(entries: Sequence[Entry]) -> float | None:
    """tau-b of knowing nothing but the gradient ratio, in the best order that there is: the mean truth of each gradient
    ratio."""
    means = {
        s: np.mean([e.mean for e in entries if e.gradient_ratio == s]) for s in {e.gradient_ratio for e in entries}
    }
    return _round(kendalltau([means[e.gradient_ratio] for e in entries], [e.mean for e in entries]).statistic)


def _round(value: float) -> float | None:
    """None where there is no order to compare: all are level."""
    return round(float(value), 3) if np.isfinite(value) else None
