"""The table of experiments/bccd: gains of equal seeds with scipy's paired interval, failures named."""

from __future__ import annotations

import pytest
from scipy.stats import ttest_rel

from autokd.benchmark.recording.settings import read_config
from experiments.bccd import gain

AP = {
    "none": {0: 0.350, 1: 0.362, 2: 0.341},
    "searched": {0: 0.391, 1: 0.402, 2: 0.399},
    "pkd": {0: 0.380, 1: 0.377},
}


@pytest.fixture
def rows():
    finished = [
        {"name": name, "seed": seed, "status": "finished", "cause": None, "val_ap": ap + 0.01, "test_ap": ap}
        for name, by_seed in AP.items()
        for seed, ap in by_seed.items()
    ]
    return [*finished, {"name": "pkd", "seed": 2, "status": "failed", "cause": "non_finite"}]


def interval(ours: str, theirs: str) -> str:
    seeds = sorted(AP[ours].keys() & AP[theirs].keys())
    a, b = ([AP[name][seed] for seed in seeds] for name in (ours, theirs))
    low, high = ttest_rel(a, b).confidence_interval(0.95)
    return f"{sum(a) / len(a) - sum(b) / len(b):+.4f} [{low:+.4f}, {high:+.4f}]"


def test_gains_are_of_equal_seeds_with_students_paired_interval(rows):
    lines = gain.table(rows, {"pkd": None})
    cells = {line.split("|")[1].strip(): [c.strip() for c in line.split("|")[2:-1]] for line in lines[2:]}
    assert list(cells)[:3] == ["searched", "pkd", "none"], "the best on test first"
    assert cells["searched"][3:] == [interval("searched", "none"), ""]
    assert cells["pkd"][3:] == [interval("pkd", "none"), interval("searched", "pkd")]
    assert cells["pkd"][0] == "published"
    assert cells["none"][1:4] == ["0.3610 ± 0.0105", "0.3510 ± 0.0105 (3)", ""]


def test_what_was_not_trained_is_named(rows):
    assert "pkd (seed 2: non_finite)" in gain.table(rows, {})[-1]


def test_presets_are_tuned_at_a_greater_cost_than_the_search_has():
    ids = [job.id for job in gain.short_jobs()]
    assert len(ids) == len(set(ids)) == 1 + len(gain.presets()) * len(gain.GRADIENT_RATIOS)
    config = read_config(gain.SPACE)
    short = gain.config_of("pair", "tune_short").proxy
    tuning = len(ids) * short.epochs + len(gain.presets()) * gain.KEPT * config.proxy.epochs
    search = (config.search.trials + len(config.search.finalist_seeds) * (1 + config.search.finalists)) * (
        config.proxy.epochs
    )
    assert tuning > 3 * search, "in epochs of proxies"
    for gradient_ratio in gain.GRADIENT_RATIOS[1:]:
        assert gain.at_gradient_ratio("crosskd", gradient_ratio).terms[0].weight.value == pytest.approx(
            gradient_ratio / 2
        )
