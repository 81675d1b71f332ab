"""``autokd init``: the file that it writes is one that every command reads, and says why."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from autokd.cli import app
from autokd.config import load_config
from autokd.data import load_datasets
from autokd.errors import ConfigError
from autokd.starter import choose, config_text, detector_section, look

SMALL = ("--teacher", "fcos/resnet18", "--student", "retinanet/mobilenet_v2")


def write_set(root: Path) -> Path:
    """Write a set in COCO's layout, 100 x 150 px, without a test split."""
    rng = np.random.default_rng(0)
    (root / "annotations").mkdir(parents=True)
    for split, count in (("train2017", 6), ("val2017", 3)):
        (root / split).mkdir()
        images, annotations = [], []
        for number in range(count):
            pixels = rng.integers(0, 255, (100, 150, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / split / f"{number}.png")
            images.append({"id": number + 1, "file_name": f"{number}.png", "width": 150, "height": 100})
            box = {"image_id": number + 1, "category_id": 1 + number % 2, "bbox": [10, 10, 40, 30], "area": 1200}
            annotations.append({"id": number + 1, "iscrowd": 0, **box})
        categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
        text = json.dumps({"images": images, "annotations": annotations, "categories": categories})
        (root / "annotations" / f"instances_{split}.json").write_text(text)
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("init") / "my set")


def invoke(*arguments: str):
    return CliRunner().invoke(app, ["init", *arguments], env={"COLUMNS": "160", "NO_COLOR": "1"})


def test_findings_are_what_is_there(root: Path, tmp_path: Path):
    found = look(root, tmp_path)
    assert [(split.name, split.images, split.boxes) for split in found.splits] == [("train", 6, 6), ("val", 3, 3)]
    assert (found.classes, found.boxes_of_class, found.image_size_px) == (("cat", "dog"), (3, 3), (100, 150))
    assert found.box_side_px == pytest.approx((np.sqrt(1200),) * 3)
    assert not found.has_test
    assert any("no test split" in line for line in found.lines())


def test_the_file_says_what_it_does_and_is_read_back(root: Path, tmp_path: Path):
    out = tmp_path / "kd.yaml"
    done = invoke(
        str(out), "--data", str(root), *SMALL, "--trials", "7", "--seconds", "0", "--cache-dir", str(tmp_path)
    )
    assert done.exit_code == 0, done.output + repr(done.exception)
    assert "2 classes: cat (3), dog (3)" in done.output
    config = load_config(out)
    assert config.name == "kd"
    assert config.search.trials == 7
    assert config.student.architecture == "retinanet"  # type: ignore[attr-defined]
    assert config.teachers[0].train is not None, "a teacher without weights is trained"
    height, width = config.data.image_size_px
    assert height % 32 == width % 32 == 0
    assert width <= 160 + 32
    assert len(load_datasets(config.data, tmp_path, check=False).train) == 6
    text = out.read_text()
    assert "small boxes 35 px" in text
    assert invoke(str(out), "--data", str(root)).exit_code == 1, "a file is not overwritten"


def test_a_checkpoint_takes_the_place_of_the_teachers_training(root: Path, tmp_path: Path):
    choices = choose(look(root, tmp_path), name="x", budget=3, teacher="fcos/resnet18", student="fcos/resnet18",
                     checkpoint=tmp_path / "a [1].pth")  # fmt: skip
    assert choices.teacher_epochs is None
    (tmp_path / "a [1].pth").write_bytes(b"")
    config = load_config(config_text(choices))
    assert config.teachers[0].checkpoint == tmp_path / "a [1].pth"
    assert config.search.budget == 3
    assert "proxy" not in config.model_fields_set, "trials of a budget are stages of full trainings"


def test_names_of_detectors_are_read_or_refused():
    assert detector_section("retinanet/resnet18") == {"architecture": "retinanet", "backbone": {"name": "resnet18"}}
    assert detector_section("fasterrcnn_resnet50_fpn") == {"architecture": "fasterrcnn_resnet50_fpn"}
    assert detector_section("mine.py") == {"framework": "mmdet", "config": "mine.py"}
    with pytest.raises(ConfigError, match=r"'fcs'.*fcos"):
        detector_section("fcs/resnet18")


def test_a_folder_without_a_layout_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="no layout that is known"):
        look(tmp_path, tmp_path)
    with pytest.raises(ConfigError, match="no such folder"):
        look(tmp_path / "none", tmp_path)
    done = invoke(str(tmp_path / "new.yaml"))
    assert isinstance(done.exception, ConfigError)
    assert "--data" in str(done.exception)
