"""A whole run from a file of three sections and a budget, on generated images."""

from __future__ import annotations

import pytest

from autokd.config import load_config
from autokd.storage import Results, open_existing, read_record
from autokd.study import run_search

TINY = """
name: tiny
data: {format: shapes, image_size_px: [64, 64], num_train: 16, num_val: 8, num_test: 8}
teacher: {backbone: {width: 16}, train: {epochs: 1}}
student: {backbone: {width: 8}, box_init: 1}
search: {budget: 2}
full: {epochs: 2, seeds: [0]}
runtime: {workers: 0}
"""


@pytest.mark.slow
def test_a_run_with_a_budget_leaves_everything_that_it_promises(tmp_path):
    directory = tmp_path / "tiny"
    results = run_search(load_config(TINY), directory, cache_dir=tmp_path / "cache")
    assert Results.read(directory / "results.json") == results
    assert results.entries[0].name == "none"
    assert {each.name for each in results.entries} <= {"none", "searched"}
    assert results.winner in {"none", "searched"}
    assert results.race.in_full
    assert [ended.seed for ended in results.race.rounds] == [1], "seed 0 is reported"
    assert results.search.full_trainings == pytest.approx(2.0)
    assert not list(directory.rglob("*.checkpoint"))
    records = [read_record(trial) for trial in open_existing(directory).trials]
    trained = [record for record in records if record.outcome is not None]
    assert [record.recipe for record in trained] == ["full"] * results.search.finished
    assert all(record.outcome.reports[-1].epoch == 1 for record in trained)
    page = (directory / "report.html").read_text()
    assert "It cost 2.0 full trainings" in page
    assert "A race of 1 full training" in page
    assert (directory / "student.pt").exists()
    again = run_search(load_config(TINY), directory, cache_dir=tmp_path / "cache", resume=True)
    assert again.entries == results.entries
