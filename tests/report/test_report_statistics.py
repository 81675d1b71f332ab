"""Means, spreads and intervals against scipy's own tests and hand computations."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from scipy import stats

from autokd.report.headline import headline
from autokd.report.statistics import gain, summarize
from autokd.report.tables import entries_markdown, entries_table, rows
from autokd.report.view import EntryView, ReportData


def entry(name: str, test_ap: list[float], seeds: list[int] | None = None) -> EntryView:
    seeds = list(range(len(test_ap))) if seeds is None else seeds
    return EntryView(name, tuple(seeds), tuple(test_ap), tuple(test_ap), tuple(10.0 for _ in test_ap))


OURS = [0.381, 0.377, 0.384, 0.379]
NONE = [0.371, 0.370, 0.372, 0.371]


def test_summary_equals_numpys_sample_statistics() -> None:
    summary = summarize(OURS)
    assert summary is not None
    assert summary.mean == pytest.approx(np.mean(OURS), abs=1e-15)
    assert summary.deviation == pytest.approx(np.std(OURS, ddof=1), abs=1e-15)


def test_summary_leaves_out_what_is_no_ap() -> None:
    summary = summarize([0.5, math.nan, -1.0, 0.7])
    assert summary is not None
    assert (summary.mean, summary.count) == (pytest.approx(0.6), 2)
    assert summarize([-1.0, math.nan]) is None


def test_gain_of_equal_seeds_is_scipys_paired_interval() -> None:
    found = gain(entry("searched", OURS), entry("none", NONE))
    expected = stats.ttest_rel(OURS, NONE).confidence_interval(0.95)
    assert found is not None
    assert found.is_paired
    assert found.mean == pytest.approx(np.mean(np.subtract(OURS, NONE)))
    assert (found.low, found.high) == (pytest.approx(expected.low), pytest.approx(expected.high))


def test_gain_pairs_by_seed_and_not_by_position() -> None:
    found = gain(entry("searched", [0.30, 0.40, 0.50], [0, 1, 2]), entry("none", [0.49, 0.38, 0.10], [2, 1, 7]))
    expected = stats.ttest_1samp([0.40 - 0.38, 0.50 - 0.49], 0.0).confidence_interval(0.95)
    assert found is not None
    assert (found.count, found.low, found.high) == (2, pytest.approx(expected.low), pytest.approx(expected.high))


def test_gain_without_shared_seeds_is_scipys_welch_interval() -> None:
    found = gain(entry("searched", OURS), entry("none", NONE[:3], [7, 8, 9]))
    expected = stats.ttest_ind(OURS, NONE[:3], equal_var=False).confidence_interval(0.95)
    assert found is not None
    assert not found.is_paired
    assert (found.low, found.high) == (pytest.approx(expected.low), pytest.approx(expected.high))


def test_one_seed_gives_a_gain_without_an_interval() -> None:
    found = gain(entry("searched", [0.4]), entry("none", [0.3]))
    assert found is not None
    assert found.mean == pytest.approx(0.1)
    assert (found.low, found.high) == (None, None)
    assert not found.is_certain


def test_headline_claims_a_win_only_where_both_intervals_exclude_zero() -> None:
    clear = ReportData("r", entries=(entry("none", NONE), entry("pkd", NONE), entry("searched", OURS)))
    assert headline(clear).tone == "ahead"
    assert (
        headline(clear).title
        == "The searched distiller beats no distillation and the best other distiller (pkd) on test"
    )
    noisy = [0.36, 0.40, 0.37, 0.395]
    open_ = ReportData("r", entries=(entry("none", NONE), entry("pkd", noisy), entry("searched", [*OURS[:3], 0.39])))
    assert headline(open_).tone == "open"
    assert "its lead over pkd is within the noise" in headline(open_).title


def test_headline_says_so_when_a_preset_or_none_is_ahead() -> None:
    better = [value + 0.01 for value in OURS]
    preset = ReportData("r", entries=(entry("none", NONE), entry("pkd", better), entry("searched", OURS)))
    assert headline(preset).title == "pkd beats the searched distiller on test"
    worse = [value - 0.01 - i / 1000 for i, value in enumerate(NONE)]
    lost = ReportData("r", entries=(entry("none", NONE), entry("searched", worse)))
    assert headline(lost).title == "The searched distiller is clearly worse than no distillation on test"
    assert {headline(preset).tone, headline(lost).tone} == {"behind"}


def test_headline_with_one_seed_claims_nothing() -> None:
    data = ReportData("r", entries=(entry("none", [0.3]), entry("pkd", [0.31]), entry("searched", [0.4])))
    assert headline(data).tone == "open"
    assert any("with one seed nothing can be said" in sentence for sentence in headline(data).sentences)


def test_headline_warns_when_there_is_no_test_split() -> None:
    data = ReportData("r", entries=(entry("none", NONE), entry("searched", OURS)), judged_on="val")
    assert any("flatter" in sentence for sentence in headline(data).sentences)
    assert headline(data).title.endswith("on val")


def test_table_rows_stand_in_order_of_test_ap_with_hand_computed_words() -> None:
    [first, second] = rows([entry("none", [0.1, 0.3]), entry("searched", [0.3, 0.6])], winner="searched")
    half = stats.t.ppf(0.975, 1) * np.std([0.2, 0.3], ddof=1) / math.sqrt(2)
    assert (first.name, first.test_ap, first.gain) == ("searched", "0.4500 ± 0.2121", "+0.2500")
    assert first.interval == f"[{0.25 - half:+.4f}, {0.25 + half:+.4f}]"
    assert (second.name, second.gain, second.interval) == ("none", "–", "–")
    assert (first.is_winner, second.is_winner) == (True, False)


def test_markdown_and_terminal_tables_hold_every_entry() -> None:
    from rich.console import Console

    entries = [entry("none", NONE), entry("a|b[red]", OURS)]
    text = entries_markdown(entries, winner="a|b[red]")
    assert "| **a\\|b[red]** | 0.3802 ± 0.0030 |" in text
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(entries_table(entries, winner="none"))
    shown = console.export_text()
    assert "a|b[red]" in shown
    assert "none *" in shown
