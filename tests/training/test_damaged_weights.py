"""Weights in the cache that are cut short or changed are made again, and never believed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from autokd.training.assets import TrainingAssets
from autokd.training.teacher.obtain import find_teacher, obtain_teacher

CPU = torch.device("cpu")


def change(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "cut":
        content = content[: len(content) // 2]
    elif how == "empty":
        content = bytearray()
    else:
        content[len(content) // 2] ^= 4
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(("file", "how"), [("weights.pt", "bit"), ("weights.pt", "empty"), ("meta.json", "cut")])
def test_a_damaged_teacher_is_trained_again_and_equal(make_tiny_config, tiny_data, tmp_path, file, how):
    section = make_tiny_config(teacher={"train": {"epochs": 1, "batch_size": 8}}).teacher
    first = obtain_teacher(section, tiny_data.train, tmp_path, CPU)
    change(first.folder / file, how)
    assert find_teacher(section, tiny_data.train, tmp_path) is None
    again = obtain_teacher(section, tiny_data.train, tmp_path, CPU)
    assert again.digest == first.digest
    assert (first.folder.parent / f".{first.folder.name}.damaged").is_dir()


def test_a_damaged_warm_start_is_trained_again_and_equal(make_tiny_config, tiny_data, tmp_path):
    config = make_tiny_config()
    sound = TrainingAssets(config, tmp_path, CPU, tiny_data).students.warm(0).state_dict()
    [path] = (tmp_path / "warm_starts").glob("*.pt")
    change(path, "bit")
    found = TrainingAssets(config, tmp_path, CPU, tiny_data).students.warm(0).state_dict()
    assert all(torch.equal(found[name], value) for name, value in sound.items())
