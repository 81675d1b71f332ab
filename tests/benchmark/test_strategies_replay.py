"""Strategies replayed on tables of three made-up pairs: what each chooses, knowing nothing of its own pair."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autokd.benchmark import BenchmarkRow, DistillerBenchmark, save_benchmark
from autokd.benchmark.identity import SCHEMA, Header
from autokd.benchmark.simulation.strategies import STRATEGIES, recorded_pairs, replay, replay_lines
from autokd.errors import BenchmarkError
from autokd.files import text_digest
from autokd.jobs import TRAINING_VERSION, Outcome, Report
from autokd.space import Summand, default_parts

PARTS = ("fitnet", "cwd", "pkd", "mgd", "g_detkd_sgfi", "kd", "at")
GAINS = {
    "x": dict(zip(PARTS, (0.05, 0.04, 0.03, 0.02, 0.01, -0.02, -0.03), strict=True)),
    "y": dict(zip(PARTS, (0.04, 0.05, 0.02, 0.01, 0.03, -0.01, -0.02), strict=True)),
    "z": dict(zip(PARTS, (-0.04, -0.05, -0.03, -0.02, -0.01, -0.01, -0.02), strict=True)),
}
NUM_EPOCHS = 10


def outcome(gain: float, seed: int) -> Outcome:
    def at(epoch: int) -> dict[str, float]:
        part = epoch / NUM_EPOCHS
        return {"ap": 0.3 * part + gain * part, "val_loss": 2.0 - part - gain * part, "val_loss/box": 1.0 - gain * part}

    final = {"val_ap": 0.3 + 0.01 * seed + gain, "test_ap": 0.3 + 0.01 * seed + gain, "ap": 0.3 + gain}
    reports = [Report("", epoch, at(epoch) if epoch in (1, 4) else {}) for epoch in range(1, NUM_EPOCHS)]
    return Outcome("", "finished", final, reports=(*reports, Report("", NUM_EPOCHS, final)))


def write(folder, gains):
    space, text = default_parts(), "terms: 1\n"
    paths = []
    for pair, of_parts in gains.items():
        header = Header(
            SCHEMA, TRAINING_VERSION, ("abc",), text, text_digest(text), {"name": pair}, "", ("here",), "", len(PARTS)
        )
        none = BenchmarkRow(None, full={seed: outcome(0.0, seed) for seed in (0, 1)})
        rows = [
            BenchmarkRow(space.sum_of([Summand(part)]), full={seed: outcome(gain, seed) for seed in (0, 1)})
            for part, gain in of_parts.items()
        ]
        paths.append(folder / f"{pair}.jsonl.gz")
        save_benchmark(paths[-1], DistillerBenchmark(header, [none, *rows]))
    return paths


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return recorded_pairs(write(tmp_path_factory.mktemp("tables"), GAINS))


def part_of(pair, position):
    [name] = [p for p in PARTS if default_parts().sum_of([Summand(p)]) == pair.rows[position].spec.canonical()]
    return name


def test_the_queue_of_a_pair_is_made_of_the_others(pairs, tmp_path):
    x = pairs[0]
    assert part_of(x, x.queue[0]) == "cwd", "the best of y; z has nothing that gains"
    turned = {**GAINS, "x": {part: -gain for part, gain in GAINS["x"].items()}}
    again = recorded_pairs(write(tmp_path, turned))[0]
    assert [part_of(again, i) for i in again.queue] == [part_of(x, i) for i in x.queue]


def test_the_default_strategy_finds_the_best_and_none_where_nothing_gains(pairs):
    found = replay(pairs, 10, 3)
    assert set(found) == set(STRATEGIES)
    assert found["budget"]["x"] == pytest.approx([0.05] * 3)
    assert found["budget"]["y"] == pytest.approx([0.05] * 3)
    assert found["budget"]["z"] == [0.0] * 3, "none is the best of z"
    assert all(gain >= 0 for of_pairs in found.values() for gain in of_pairs["z"])
    lines = list(replay_lines(pairs, found))
    assert lines[0] == "| strategy | x | y | z | mean |"
    assert "| best preset in hindsight | +5.00 | +5.00 | -1.00 | +3.00 |" in lines


def test_a_larger_budget_finds_no_less(pairs):
    small, large = replay(pairs, 2, 3), replay(pairs, 10, 3)
    for name in ("random in full", "presets in full", "ASHA"):
        assert sum(large[name]["x"]) >= sum(small[name]["x"])


def test_one_pair_or_a_table_without_measurements_is_refused(tmp_path):
    with pytest.raises(BenchmarkError, match="two pairs or more"):
        recorded_pairs(write(tmp_path, {"x": GAINS["x"]}))
    paths = write(tmp_path, GAINS)
    from autokd.benchmark import load_benchmark

    table = load_benchmark(paths[0])
    none = {seed: replace(each, reports=()) for seed, each in table.none.full.items()}
    save_benchmark(paths[0], DistillerBenchmark(table.header, [BenchmarkRow(None, full=none), *table]))
    with pytest.raises(BenchmarkError, match="not measured on their way"):
        recorded_pairs(paths)
