"""The table that is on record: whole, of its own config file, quick to ask, and a better place for MCTS than chance."""

from __future__ import annotations

import json
import time

import numpy as np
import optuna
import pytest
from scipy.stats import wilcoxon

from autokd.benchmark import load_benchmark
from autokd.benchmark.recording.settings import read_config
from autokd.benchmark.simulation import SAMPLERS, Truth, run_search
from autokd.space import enumerate_specs
from experiments.distiller_benchmark import parts
from tests.support.benchmark_samples import EXPERIMENT

TABLE = EXPERIMENT / "table.jsonl.gz"
PARTS = ("val_loss", "cka", "ap")
pytestmark = pytest.mark.skipif(not TABLE.exists(), reason="no table is recorded")


@pytest.fixture(scope="module")
def table():
    config = read_config(EXPERIMENT / "space.yaml")
    return load_benchmark(TABLE, config=config, space=config.space)


def test_it_holds_every_distiller_of_its_space(table):
    specs = list(enumerate_specs(read_config(EXPERIMENT / "space.yaml").space))
    assert len(specs) == len(table) >= 400
    assert all(spec in table for spec in specs)
    for recipe in ("full", "proxy"):
        table.require(recipe)


def test_a_hundred_were_trained_with_three_seeds(table):
    repeated = [row for row in table if {0, 1, 2} <= set(row.full)]
    if not repeated:
        pytest.skip("further seeds are not recorded yet")
    assert len(repeated) >= 100
    assert len(table.none.full) == 8
    aps = [row.mean("val_ap") for row in table]
    spread = [row.mean("val_ap") for row in repeated]
    # Drawn over the whole range: the repeated ones reach down to the worst fifth and hold the best.
    assert min(spread) < np.quantile(aps, 0.2)
    assert max(aps) in spread


def test_halves_of_the_space_are_spaces_of_their_own(table, tmp_path, capsys):
    arguments = ["--repeats", "2", "--workers", "2", "--samplers", "random", "--trials", "30", "--processes", "1"]
    assert parts.main([*arguments, "--output", str(tmp_path)]) == 0
    assert "| L1, L2 (" in capsys.readouterr().out
    found = {part["part"]: part for part in json.loads((tmp_path / "parts.json").read_text())["parts"]}
    assert list(found) == list(parts.PARTS)
    for one, other in (
        ("whole map, foreground", "reliable foreground, logits"),
        ("L1, L2", "cosine, Pearson, KL"),
        ("no attention", "always attention"),
    ):
        assert found[one]["specs"] + found[other]["specs"] == len(table)
        whole = max(row.gain(table.none, "val_ap") for row in table)
        assert max(found[one]["best_score"], found[other]["best_score"]) == pytest.approx(whole, abs=0.01)


def test_it_is_small_and_answers_in_microseconds(table):
    assert TABLE.stat().st_size < 5_000_000
    specs = [row.spec for row in table]
    took = []
    for _ in range(5):
        began = time.perf_counter()
        for spec in specs:
            table.lookup(spec)
        took.append((time.perf_counter() - began) / len(specs))
    assert min(took) < 100e-6


def test_proxies_have_all_metrics_after_every_epoch(table):
    config = read_config(EXPERIMENT / "space.yaml")
    for row in [table.none, *table]:
        curve = row.curve(0)
        if row.outcome("proxy", 0).status == "finished":
            assert set(curve) == set(range(1, config.proxy.epochs + 1))
            assert all({*config.proxy.reward, "train_seconds"} <= set(metrics) for metrics in curve.values())


@pytest.mark.parametrize("name", ["comparison.json", "pruning.json", "choosing.json"])
def test_what_is_written_of_it_was_computed_on_it(table, name):
    path = EXPERIMENT / name
    if not path.exists():
        pytest.skip("not computed yet")
    about = json.loads(path.read_text(encoding="utf-8"))["table"]
    assert about["created"] == table.header.created
    assert tuple(about["commits"]) == table.header.commits


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "workers", "level"), [("mcts_prior", 1, 1e-3), ("mcts_prior", 16, 1e-3), ("mcts", 1, 1e-2)]
)
def test_mcts_finds_one_of_the_best_sooner_than_chance(table, name, workers, level):
    """By the table's full trainings, 60 repeats, paired by seed: the signed-rank test's p stays below ``level``: it is
    how often a sampler that is no better than chance would pass. Without its prior the gain is smaller, and so many
    repeats need not show more than a hundredth."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    truth = Truth(table, PARTS)

    def trials(sampler: str) -> list[int]:
        traces = [
            run_search(
                truth,
                SAMPLERS[sampler](seed, truth.space),
                num_workers=workers,
                num_trials=120,
                is_enough=lambda trace: bool(truth.top_score.intersection(trace.rows)),
            )
            for seed in range(60)
        ]
        return [trace.first(truth.top_score) or 120 for trace in traces]

    assert wilcoxon(trials(name), trials("random"), alternative="less").pvalue < level
