"""A plan on generated images: measured here, exact in bytes, and without a trace in the cache."""

from __future__ import annotations

import json

import pytest

from autokd.cli.plan import as_json, as_table
from autokd.config import load_config
from autokd.data import load_datasets
from autokd.detectors import resolve
from autokd.study import make_plan
from autokd.training import prepare

pytestmark = pytest.mark.slow

TINY = """
name: tiny
data: {format: shapes, image_size_px: [64, 64], num_train: 16, num_val: 8, num_test: 8}
teacher: {backbone: {width: 8}, fpn_channels: 16, train: {epochs: 1, batch_size: 4}}
student: {backbone: {width: 8}, fpn_channels: 8}
space: {terms: 1, sources: [feature_map], transforms: {normalize: [none]}, distances: [l2]}
search: {trials: 2, enqueue: [pkd], finalists: 1}
proxy: {subset: 0.25, batch_size: 2, num_views: 3}
full: {epochs: 2, batch_size: 4, seeds: [0], baselines: [none]}
runtime: {workers: 0}
"""


def test_a_plan_measures_every_part_and_counts_the_bytes_that_preparation_writes(tmp_path):
    config = load_config(TINY)
    bill = make_plan(config, cache_dir=tmp_path, budget_s=1.0, price=2.0)
    # Of the data alone: neither teachers nor their outputs, warm starts or checkpoints.
    data_folders = {"shapes", "annotations", "decoded_images", "image_files"}
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} <= data_folders
    names = ["teacher", "teachers' outputs", "proxies", "winner in full", "baselines in full"]
    assert [phase.name for phase in bill.phases] == names
    assert all(phase.seconds > 0 and phase.wall_s > 0 for phase in bill.phases)
    assert bill.excess() == ""
    data = json.loads(as_json(bill))
    assert data["cost"] == pytest.approx(2.0 * data["wall_s"] / 3600)
    assert as_table(bill) is not None

    resolved = resolve(config)
    prepare(resolved, load_datasets(resolved.data, tmp_path), tmp_path)
    files = list((tmp_path / "teacher_taps").glob("*/*.npy"))
    # What is stored is counted to the byte but for the files' headers.
    assert sum(path.stat().st_size for path in files) - bill.disk_bytes == 128 * len(files)
    # The search's own seed was prepared, and there is no other: nothing is left to be written.
    assert make_plan(config, cache_dir=tmp_path, budget_s=0.5).disk_bytes == 0
