"""A run knows what its files hold: an edited config or checkpoint is neither taken from a cache nor resumed over."""

from __future__ import annotations

import pytest
import torch

from autokd.config import load_config
from autokd.data import load_datasets
from autokd.detectors import structure_text
from autokd.errors import StorageError
from autokd.presets import load_distiller
from autokd.study import run_distill
from autokd.study.contents import check_same_contents, contents_of

SPACE = """
name: contents
data: {{root: {root}, train: instances_train.json, val: instances_val.json, image_size_px: [64, 96]}}
teacher: {{framework: mmdet, config: {folder}/teacher.py, checkpoint: {folder}/teacher.pth}}
student: {{framework: mmdet, config: {folder}/student.py}}
proxy: {{epochs: 4, warm_start: {{}}}}
full: {{epochs: 1, seeds: [0], baselines: [none]}}
runtime: {{workers: 0}}
"""


@pytest.fixture
def run_of(folder, shapes):
    """(folder, configuration) of a pair whose configs can be edited."""
    where = folder()
    (where / "teacher.py").write_text((where / "student.py").read_text())
    return where, load_config(SPACE.format(root=shapes, folder=where))


def edit(path, text: str) -> None:
    with path.open("a") as file:
        file.write(f"\n{text}\n")


@pytest.mark.parametrize(
    ("file", "text", "changed"),
    [
        ("student.py", "model['bbox_head']['reg_max'] = 4", ["student.config"]),
        ("teacher.py", "model['bbox_head']['loss_bbox'] = dict(type='GIoULoss', loss_weight=9.0)", ["teacher.config"]),
        ("student.py", "work_dir = 'elsewhere'  # decides no number of AutoKD's", []),
    ],
)
def test_contents_follow_what_the_config_says_of_the_model(file, text, changed, run_of, tmp_path):
    where, config = run_of
    datasets = load_datasets(config.data, tmp_path / "cache")
    before = contents_of(config, datasets)
    edit(where / file, text)
    after = contents_of(config, datasets)
    assert [place for place in before if before[place] != after[place]] == changed


def test_contents_follow_bases_checkpoints_and_annotations(run_of, shapes, tmp_path):
    import json

    where, config = run_of
    datasets = load_datasets(config.data, tmp_path / "cache")
    before = contents_of(config, datasets)
    assert set(before) == {
        "data.train.files", "data.val.files", "data.test.files", "student.config", "teacher.config",
        "teacher.checkpoint",
    }  # fmt: skip
    base = where / "base.py"
    base.write_text((where / "student.py").read_text())
    (where / "student.py").write_text("_base_ = 'base.py'\n")
    assert contents_of(config, datasets)["student.config"] == before["student.config"], "the same, said elsewhere"
    edit(base, "model['bbox_head']['reg_max'] = 4")
    state = torch.load(where / "teacher.pth", weights_only=True)
    state["state_dict"]["backbone.conv1.weight"] += 1
    torch.save(state, where / "teacher.pth")
    whole = json.loads((shapes / "instances_val.json").read_text())
    (where / "less.json").write_text(json.dumps(whole | {"annotations": whole["annotations"][:-1]}))
    data = config.data.model_copy(update={"val": where / "less.json"})
    after = contents_of(config, load_datasets(data, tmp_path / "cache"))
    changed = {place for place in before if before[place] != after[place]}
    assert changed == {"student.config", "teacher.checkpoint", "data.val.files", "data.test.files"}


def test_caches_of_weights_and_taps_do_not_take_an_edited_config_for_the_old_one(run_of, tmp_path):
    from autokd.training.assets import TrainingAssets

    where, config = run_of

    def keys():
        assets = TrainingAssets(config, tmp_path / "cache", torch.device("cpu"))
        return assets.students.warm_start_key(0), assets.teachers.all[0].digest, structure_text(config.student)

    before = keys()
    edit(where / "student.py", "model['neck'] = dict(num_outs=5, add_extra_convs='on_input')")
    edit(where / "teacher.py", "model['neck'] = dict(num_outs=5, add_extra_convs='on_input')")
    assert all(one != other for one, other in zip(before, keys()))


def test_a_difference_is_named_and_what_an_older_run_did_not_know_is_none():
    check_same_contents({}, {"student.config": "b"})
    check_same_contents({"student.config": "b", "data.train": "c"}, {"student.config": "b"})
    with pytest.raises(StorageError, match=r"files behind student\.config have changed .* begin a new run"):
        check_same_contents({"student.config": "a", "data.train": "c"}, {"student.config": "b", "data.train": "c"})


@pytest.mark.slow
def test_a_run_is_not_resumed_over_an_edited_config(run_of, tmp_path):
    where, config = run_of
    spec = load_distiller("fitnet").with_gradient_ratio(20)
    first = run_distill(config, spec, tmp_path / "run", cache_dir=tmp_path / "cache")
    again = run_distill(config, spec, tmp_path / "run", cache_dir=tmp_path / "cache", resume=True)
    assert again.entries == first.entries
    student = (where / "student.py").read_text()
    edit(where / "student.py", "model['bbox_head']['loss_cls'] = dict(type='QualityFocalLoss', loss_weight=3.0)")
    with pytest.raises(StorageError, match=r"student\.config"):
        run_distill(config, spec, tmp_path / "run", cache_dir=tmp_path / "cache", resume=True)
    (where / "student.py").write_text(student)
    assert run_distill(config, spec, tmp_path / "run", cache_dir=tmp_path / "cache", resume=True).winner == first.winner
