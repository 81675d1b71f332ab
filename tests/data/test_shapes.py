"""The generated set: the same bits for a seed, boxes that fit the pixels, and files that are COCO's."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from autokd.config import ShapesData
from autokd.data import load_datasets, shapes_digest, write_shapes
from autokd.data.scene import MAX_OBJECTS, MIN_VISIBLE, SHAPES
from autokd.data.shapes import draw_image

TINY = ShapesData(format="shapes", num_train=6, num_val=3, num_test=2, seed=11)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(TINY, tmp_path_factory.mktemp("cache"))


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_same_settings_give_the_same_bytes_in_the_same_folder(folder: Path, tmp_path: Path) -> None:
    again = write_shapes(TINY, tmp_path)
    assert again.name == folder.name == shapes_digest(TINY)
    assert _contents(again) == _contents(folder)
    assert [path.name for path in (tmp_path / "shapes").iterdir()] == [again.name]


def test_pixels_are_those_recorded_for_the_generator_version() -> None:
    """Recorded from version 1. Another value means that GENERATOR_VERSION must be raised."""
    digest = hashlib.sha256()
    for number in range(4):
        pixels, objects = draw_image(TINY, "val", number)
        digest.update(pixels.tobytes())
        for item in objects:
            digest.update(bytes([item.label]) + item.mask.tobytes())
    assert digest.hexdigest()[:16] == "dd719dfe5def765a"


def test_second_call_reuses_the_folder(folder: Path) -> None:
    stamp = (folder / "instances_train.json").stat().st_mtime_ns
    assert write_shapes(TINY, folder.parent.parent) == folder
    assert (folder / "instances_train.json").stat().st_mtime_ns == stamp


def test_settings_change_the_folder_and_a_larger_set_begins_with_the_smaller() -> None:
    larger = TINY.model_copy(update={"num_train": 7})
    other = TINY.model_copy(update={"seed": 12})
    assert len({shapes_digest(config) for config in (TINY, larger, other)}) == 3
    np.testing.assert_array_equal(draw_image(TINY, "train", 5)[0], draw_image(larger, "train", 5)[0])
    assert (draw_image(TINY, "train", 5)[0] != draw_image(other, "train", 5)[0]).any()
    assert (draw_image(TINY, "train", 1)[0] != draw_image(TINY, "val", 1)[0]).any()


def test_interrupted_generation_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("autokd.data.shapes.draw_scene", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_shapes(TINY, tmp_path)
    assert list((tmp_path / "shapes").iterdir()) == []


def test_folder_finished_by_another_process_meanwhile_is_taken(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from autokd.data import shapes

    draw_scene = shapes.draw_scene

    def overtaken(*arguments: Any) -> Any:
        (tmp_path / "shapes" / folder.name / "images").mkdir(parents=True, exist_ok=True)
        return draw_scene(*arguments)

    monkeypatch.setattr("autokd.data.shapes.draw_scene", overtaken)
    assert write_shapes(TINY, tmp_path).name == folder.name
    assert len(list((tmp_path / "shapes").iterdir())) == 1


def test_files_are_those_of_the_scenes(folder: Path) -> None:
    data = json.loads((folder / "instances_train.json").read_text())
    assert [category["name"] for category in data["categories"]] == list(SHAPES)
    for image in data["images"]:
        stored = np.asarray(Image.open(folder / "images" / image["file_name"]))
        pixels, objects = draw_image(TINY, "train", image["id"] - 1)
        np.testing.assert_array_equal(stored, pixels)
        rows = [row for row in data["annotations"] if row["image_id"] == image["id"]]
        assert len(rows) == len(objects)
        for row, item in zip(rows, objects, strict=True):
            # The box of a mask by its definition: the least one that holds all its pixels.
            ys, xs = np.nonzero(item.mask)
            assert row["bbox"] == [xs.min(), ys.min(), xs.max() + 1 - xs.min(), ys.max() + 1 - ys.min()]
            assert row["area"] == len(ys)
            assert row["category_id"] == item.label + 1


def test_scenes_are_within_their_bounds() -> None:
    scenes = [draw_image(TINY, "test", number)[1] for number in range(60)]
    labels = np.bincount([item.label for scene in scenes for item in scene], minlength=len(SHAPES))
    assert labels.min() > 10
    assert max(len(scene) for scene in scenes) == MAX_OBJECTS
    for scene in scenes:
        covered = sum(item.mask.astype(int) for item in scene)
        assert np.max(covered, initial=0) <= 1, "visible parts do not overlap"
        for item in scene:
            ys, xs = np.nonzero(item.mask)
            assert max(np.ptp(ys), np.ptp(xs)) + 1 <= 66


def test_shapes_have_the_areas_of_geometry() -> None:
    """In the unit circle: disc pi, square 2, triangle 3 sqrt(3)/4, pentagram, ring 0.7 pi, cross."""
    steps = (np.arange(800) + 0.5) / 400 - 1
    u, v = steps[None, :] + 0 * steps[:, None], steps[:, None] + 0 * steps[None, :]
    pentagram = 5 * np.sin(np.pi / 5) * np.cos(2 * np.pi / 5) / np.cos(np.pi / 5)  # radii 1 and cos 72 / cos 36
    expected = {
        "disc": np.pi,
        "square": 2.0,
        "triangle": 3 * np.sqrt(3) / 4,
        "star": pentagram,
        "ring": 0.7 * np.pi,
        "cross": 4 * 0.95 * 0.6 - 0.6**2,
    }
    for name, inside in SHAPES.items():
        assert float(inside(u, v).mean() * 4) == pytest.approx(expected[name], rel=0.01), name


def test_objects_are_mostly_visible() -> None:
    """Against the full shape's area in geometry: no object shows less than MIN_VISIBLE of even the smallest stretch."""
    seen = [
        (SHAPES_AREA[list(SHAPES)[item.label]], item.mask)
        for number in range(40)
        for item in draw_image(TINY, "val", number)[1]
    ]
    for part_of_circle, mask in seen:
        ys, xs = np.nonzero(mask)
        longest = max(np.ptp(ys), np.ptp(xs)) + 1
        # The visible extent is at most the circle's diameter; half of the shape in it is a safe lower bound of area.
        assert mask.sum() >= 0.5 * MIN_VISIBLE * part_of_circle * (longest / 2) ** 2 * 0.8


SHAPES_AREA = {"disc": 3.14, "square": 2.0, "triangle": 1.3, "star": 1.12, "ring": 2.2, "cross": 1.92}


def test_generated_set_loads_clean(folder: Path) -> None:
    datasets = load_datasets(TINY, folder.parent.parent)
    assert (len(datasets.train), len(datasets.val), len(datasets.test)) == (6, 3, 2)
    assert datasets.classes == tuple(SHAPES)
    assert not datasets.test_is_val
    for split in datasets.splits:
        assert split.report.warnings() == tuple(
            line for line in split.report.warnings() if line.startswith("classes without a box")
        )
    sample = datasets.train.load(0)
    stored = np.asarray(Image.open(datasets.train.image_path(0)))
    np.testing.assert_array_equal(sample.pixels_CHW.numpy().transpose(1, 2, 0), stored)


@pytest.mark.parametrize("size", [(32, 32), (64, 160)])
def test_other_image_sizes_are_drawn(size: tuple[int, int]) -> None:
    config = TINY.model_copy(update={"image_size_px": size})
    pixels, objects = draw_image(config, "train", 0)
    assert pixels.shape == (*size, 3)
    assert all(item.mask.shape == size and item.mask.any() for item in objects)
