"""A whole run in which a student is promoted, and the same run taken up again."""

from __future__ import annotations

import pytest
import torch

from autokd.config import load_config
from autokd.storage import StudyFacts, open_existing, read_record
from autokd.study import run_search

pytestmark = pytest.mark.slow
torch.set_num_threads(1)

FILE = """
name: promoted
data: {format: shapes, image_size_px: [64, 64], num_train: 12, num_val: 8, num_test: 8}
teacher: {backbone: {width: 12}, fpn_channels: 16, train: {epochs: 1}}
teacher_weights: gap
student: {backbone: {width: 8}, fpn_channels: 16}
space: {terms: 1, sources: [feature_map, foreground], transforms: {normalize: [none, standardize]}, distances: [l1, l2]}
search: {trials: TRIALS, promote_after: 2, enqueue: [], finalists: 3, finalist_seeds: [1]}
proxy: {warm_start: {epochs: 1}, epochs: 1, calibration_trials: 2}
full: {epochs: 1, seeds: [0], baselines: [none]}
runtime: {workers: 0, threads_per_worker: 1}
"""


def test_a_run_promotes_once_and_says_so_and_a_longer_one_goes_on_with_it(tmp_path):
    directory, cache = tmp_path / "run", tmp_path / "cache"
    results = run_search(load_config(FILE.replace("TRIALS", "4")), directory, cache_dir=cache)
    number = StudyFacts(open_existing(directory)).promoted.trial
    assert any(f"student of trial {number} was promoted" in note for note in results.notes)
    longer = run_search(load_config(FILE.replace("TRIALS", "6")), directory, cache_dir=cache, resume=True)
    records = [read_record(trial) for trial in open_existing(directory).trials]
    trained = [record for record in records if record.reused_from is None]
    assert [bool(record.promoted) for record in trained] == [False, False] + [True] * 4
    assert len({record.promoted for record in trained}) == 2
    assert [folder.name for folder in (directory / "promoted").iterdir()] == [trained[-1].promoted]
    for record in trained[2:]:
        assert 0 < record.outcome.metrics["teacher_share_2"] < 1
    searched = longer.entry("searched")
    assert searched.digest in {record.digest for record in trained}
    assert ("teacher_share_2" in searched.metrics) == ("+" in searched.digest)
