"""Sets in the layouts in which they are published, from files of each kind: found, converted once, and read alike.

Expected boxes are written by hand in the units of each format's own specification.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from autokd.config import RunConfig, load_config
from autokd.data import Datasets, convert, load_datasets
from autokd.errors import AutoKDError, ConfigError, DataError

REST = "teacher: {train: {}}\nstudent: {}\n"
SIZE = (40, 60)
BOXES = {"a": [("cat", [5, 6, 25, 16]), ("dog", [30, 10, 45, 35])], "b": [("dog", [0, 0, 60, 40])], "c": []}
"""Name of an image -> class and corners in pixels of each of its objects."""


def _image(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), dtype=np.uint8)).save(path)


def _coco(names: dict[str, Any]) -> str:
    ids = {"cat": 1, "dog": 2}
    images = [{"id": i, "file_name": f"{name}.png", "width": 60, "height": 40} for i, name in enumerate(names, start=1)]
    rows = [
        {"image_id": i, "category_id": ids[label], "bbox": [x1, y1, x2 - x1, y2 - y1]}
        for i, boxes in enumerate(names.values(), start=1)
        for label, (x1, y1, x2, y2) in boxes
    ]
    annotations = [{"id": number, **row} for number, row in enumerate(rows)]
    categories = [{"id": number, "name": name} for name, number in ids.items()]
    return json.dumps({"images": images, "annotations": annotations, "categories": categories})


def _voc_xml(name: str, boxes: Any, size: tuple[int, int] = SIZE) -> str:
    objects = "".join(
        f"<object><name>{label}</name><difficult>0</difficult><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin>"
        f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for label, (x1, y1, x2, y2) in boxes
    )
    return (
        f"<annotation><folder>VOC</folder><filename>{name}.png</filename><size><width>{size[1]}</width>"
        f"<height>{size[0]}</height><depth>3</depth></size>{objects}</annotation>"
    )


def _yolo_lines(boxes: Any) -> str:
    return "".join(
        f"{['cat', 'dog'].index(label)} {(x1 + x2) / 120} {(y1 + y2) / 80} {(x2 - x1) / 60} {(y2 - y1) / 40}\n"
        for label, (x1, y1, x2, y2) in boxes
    )


def _make_coco(root: Path) -> None:
    for seed, split in enumerate(("train2017", "val2017")):
        for name in BOXES:
            _image(root / split / f"{name}.png", 10 * seed + ord(name))
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"instances_{split}.json").write_text(_coco(BOXES))
        (root / "annotations" / f"person_keypoints_{split}.json").write_text("{}")


def _make_coco_in_images(root: Path) -> None:
    _make_coco(root / "moved")
    (root / "moved" / "annotations").rename(root / "annotations")
    (root / "moved").rename(root / "images")


def _make_roboflow(root: Path) -> None:
    for seed, split in enumerate(("train", "valid", "test")):
        for name in BOXES:
            _image(root / split / f"{name}.png", 10 * seed + ord(name))
        (root / split / "_annotations.coco.json").write_text(_coco(BOXES))


def _make_voc(root: Path) -> None:
    (root / "Annotations").mkdir(parents=True)
    (root / "ImageSets" / "Main").mkdir(parents=True)
    for seed, split in enumerate(("train", "val", "test")):
        names = [f"{split}_{name}" for name in BOXES]
        for name, boxes in zip(names, BOXES.values()):
            _image(root / "JPEGImages" / f"{name}.png", 10 * seed + ord(name[-1]))
            (root / "Annotations" / f"{name}.xml").write_text(_voc_xml(name, boxes))
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names) + "\n")


def _make_voc_folders(root: Path) -> None:
    for seed, split in enumerate(("train", "valid", "test")):
        for name, boxes in BOXES.items():
            _image(root / split / f"{name}.png", 10 * seed + ord(name))
            # 0 x 0, as some programs write it: the size is the file's.
            (root / split / f"{name}.xml").write_text(_voc_xml(name, boxes, (0, 0)))


def _make_yolo(root: Path) -> None:
    for seed, split in enumerate(("train", "val", "test")):
        for name, boxes in BOXES.items():
            _image(root / "images" / split / f"{name}.png", 10 * seed + ord(name))
            if boxes:  # an image without objects has no file of labels
                labels = root / "labels" / split / f"{name}.txt"
                labels.parent.mkdir(parents=True, exist_ok=True)
                labels.write_text(_yolo_lines(boxes))
    names = "{0: cat, 1: dog}"
    (root / "data.yaml").write_text(f"train: images/train\nval: images/val\ntest: images/test\nnames: {names}\n")


def _make_yolo_of_roboflow(root: Path) -> None:
    for seed, split in enumerate(("train", "valid")):
        for name, boxes in BOXES.items():
            _image(root / split / "images" / f"{name}.png", 10 * seed + ord(name))
            (root / split / "labels").mkdir(exist_ok=True)
            (root / split / "labels" / f"{name}.txt").write_text(_yolo_lines(boxes))
    (root / "data.yaml").write_text(
        "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: ['cat', 'dog']\nroboflow: {version: 1}\n"
    )


def _make_yolo_lists(root: Path) -> None:
    _make_yolo(root)
    for split in ("train", "val"):
        (root / f"{split}.txt").write_text("".join(f"./images/{split}/{name}.png\n" for name in BOXES))
    (root / "data.yaml").write_text("path: /gone/elsewhere\ntrain: [train.txt]\nval: val.txt\nnames: [cat, dog]\n")


LAYOUTS = {
    "coco": (_make_coco, False),
    "coco, folders in images": (_make_coco_in_images, False),
    "roboflow": (_make_roboflow, True),
    "voc": (_make_voc, True),
    "voc, a folder a split": (_make_voc_folders, True),
    "yolo": (_make_yolo, True),
    "yolo of roboflow": (_make_yolo_of_roboflow, False),
    "yolo, lists": (_make_yolo_lists, False),
}
"""Name -> what writes it, and whether it has a test split."""


def _load(root: Path, cache: Path, keys: str = "") -> Datasets:
    config = load_config(f"data: {{root: {root}, image_size_px: [40, 60]{keys}}}\n{REST}")
    return load_datasets(config.data, cache)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_recognized_and_read_as_written_by_hand(layout: str, tmp_path: Path) -> None:
    make, has_test = LAYOUTS[layout]
    make(tmp_path / "set")
    data = _load(tmp_path / "set", tmp_path / "cache")
    assert data.classes == ("cat", "dog")
    assert data.test_is_val != has_test
    for seed, split in enumerate(data.splits):
        stems = [split.image_path(index).stem[-1] for index in range(split.num_images)]
        assert stems == list(BOXES)
        for index, (name, boxes) in enumerate(BOXES.items()):
            target = split.target(index)
            assert [data.classes[label] for label in target["labels"]] == [label for label, _ in boxes]
            corners = np.array([box for _, box in boxes], dtype=np.float32).reshape(-1, 4)
            np.testing.assert_allclose(target["boxes"].numpy(), corners, atol=1e-4)
            pixels = np.random.default_rng(10 * seed + ord(name)).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
            np.testing.assert_array_equal(split.load(index).pixels_CHW.numpy().transpose(1, 2, 0), pixels)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_recognized_section_states_its_keys_and_reads_back_the_same(layout: str, tmp_path: Path) -> None:
    LAYOUTS[layout][0](tmp_path / "set")
    config = load_config(f"data: {{root: {tmp_path / 'set'}}}\n{REST}")
    written = config.data.model_dump(mode="json")
    again = RunConfig.model_validate({"data": written, "teacher": {"train": {}}, "student": {}})
    assert again.data == config.data


def test_a_folder_a_split_may_be_given(tmp_path: Path) -> None:
    _make_coco(tmp_path)
    (tmp_path / "train2017").rename(tmp_path / "one")
    (tmp_path / "val2017").rename(tmp_path / "two")
    keys = (
        ", images: {train: one, val: two}, train: annotations/instances_train2017.json, "
        "val: annotations/instances_val2017.json"
    )
    data = _load(tmp_path, tmp_path / "cache", keys)
    assert [split.image_path(0).parent.name for split in data.splits] == ["one", "two"]
    with pytest.raises(ConfigError, match=r"<text>:1: data\.images\.val: found '.*three', but there is no such folder"):
        _load(tmp_path, tmp_path / "cache", keys.replace("two", "three"))
    with pytest.raises(ConfigError, match=r"test file, but images names no folder for it\. Give images\.test"):
        _load(tmp_path, tmp_path / "cache", keys + ", test: annotations/instances_val2017.json")


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        ("{train: one}", "data.images.val: is missing. Give 'data.images.val'."),
        ("{train: one, val: two, vall: two}", "data.images.vall: key 'vall' is not one of test, train, val. Did you"),
        ("3", "data.images: found 3"),
    ],
)
def test_a_wrong_folder_a_split_is_one_located_error(images: str, expected: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(f"data: {{root: {tmp_path}, images: {images}, train: a.json, val: b.json}}\n{REST}")
    assert str(caught.value).startswith(f"<text>:1: {expected}")
    assert len(str(caught.value).splitlines()) == 1


def test_files_that_are_named_get_the_folders_of_their_layout(tmp_path: Path) -> None:
    _make_coco(tmp_path / "coco")
    keys = ", train: annotations/instances_train2017.json, val: annotations/instances_val2017.json"
    data = _load(tmp_path / "coco", tmp_path / "cache", keys)
    assert [split.image_path(0).parent.name for split in data.splits] == ["train2017", "val2017"]
    _make_roboflow(tmp_path / "export")
    keys = ", train: train/_annotations.coco.json, val: valid/_annotations.coco.json"
    data = _load(tmp_path / "export", tmp_path / "cache", keys)
    assert [split.image_path(0).parent.name for split in data.splits] == ["train", "valid"]
    data = _load(tmp_path / "export", tmp_path / "cache", keys + ", images: .")
    assert [split.image_path(0).parent.name for split in data.splits] == ["train", "valid"]


def test_keys_that_are_given_are_kept(tmp_path: Path) -> None:
    _make_yolo(tmp_path)
    (tmp_path / "data.yaml").rename(tmp_path / "mine.yaml")
    assert _load(tmp_path, tmp_path / "cache", ", format: yolo, file: mine.yaml").classes == ("cat", "dog")


def test_an_unknown_layout_is_named_with_those_that_are_known(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"<text>:1: data\.root: .*has no layout that is known.*Roboflow.*data\.yaml"):
        load_config(f"data: {{root: {tmp_path}}}\n{REST}")


@pytest.mark.parametrize("layout", ["voc", "voc, a folder a split", "yolo"])
def test_a_set_is_converted_once_and_again_when_a_label_changes(layout: str, tmp_path: Path, monkeypatch: Any) -> None:
    LAYOUTS[layout][0](tmp_path / "set")
    before = _load(tmp_path / "set", tmp_path / "cache")
    real, written = convert._write, []
    monkeypatch.setattr(convert, "_write", lambda *args: (written.append(args), real(*args)))
    assert _load(tmp_path / "set", tmp_path / "cache").train.fingerprint == before.train.fingerprint
    assert not written
    label = next(path for path in sorted((tmp_path / "set").rglob("*a.*")) if path.suffix in (".txt", ".xml"))
    is_xml = label.suffix == ".xml"
    label.write_text(_voc_xml(label.stem, BOXES["b"]) if is_xml else _yolo_lines(BOXES["b"]))
    after = _load(tmp_path / "set", tmp_path / "cache")
    assert len(written) == 1
    changed = after.test if "test" in str(label) else after.train
    assert changed.target(0)["boxes"].tolist() == [[0, 0, 60, 40]]


def test_a_converted_set_that_was_cut_short_is_converted_again(tmp_path: Path) -> None:
    _make_yolo(tmp_path / "set")
    _load(tmp_path / "set", tmp_path / "cache")
    [path] = (tmp_path / "cache" / "converted").glob("*/instances_val.json")
    path.write_bytes(path.read_bytes()[:-100])
    assert _load(tmp_path / "set", tmp_path / "cache").val.num_images == 3


def test_polygons_of_yolo_become_their_boxes(tmp_path: Path) -> None:
    _make_yolo(tmp_path / "set")
    label = tmp_path / "set" / "labels" / "train" / "a.txt"
    label.write_text("1 0.1 0.25 0.5 0.5 0.3 0.75\n\n0 0.5 0.5 0.2 0.2\n")
    target = _load(tmp_path / "set", tmp_path / "cache").train.target(0)
    # x from 0.1 to 0.5 of 60 px, y from 0.25 to 0.75 of 40 px; center (30, 20), size 12 x 8.
    np.testing.assert_allclose(target["boxes"].numpy(), [[6, 10, 30, 30], [24, 16, 36, 24]], atol=1e-4)
    assert target["labels"].tolist() == [1, 0]


def test_yolo_labels_refer_to_the_image_as_it_is_shown(tmp_path: Path) -> None:
    _make_yolo(tmp_path / "set")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    stored = Image.new("RGB", (40, 60))  # shown as 60 x 40
    stored.save(tmp_path / "set" / "images" / "train" / "a.png", exif=exif)
    train = _load(tmp_path / "set", tmp_path / "cache").train
    assert train.original_size(0) == (40, 60)
    assert train.report.rotated_images == 1


@pytest.mark.parametrize(
    ("layout", "file", "old", "new", "expected"),
    [
        ("yolo", "labels/train/a.txt", "0 ", "7 ", r"a\.txt:1: found '7 .*class \(0 to 1\)"),
        ("yolo", "labels/train/a.txt", "0 ", "x ", r"a\.txt:1: found 'x "),
        ("yolo", "labels/train/a.txt", "0 ", "0 0.5 0.5 0.5 ", r"a\.txt:1: found '0 0\.5 0\.5 .*Correct or remove it"),
        ("yolo", "data.yaml", "images/train", "nowhere", r"data\.yaml:1: train: found 'nowhere'.*no such folder"),
        ("yolo", "data.yaml", "val: images/val", "vl: images/val", r"data\.yaml: the key 'val' is missing"),
        ("yolo", "data.yaml", "0: cat", "1: cat", r"data\.yaml:.*repeated|twice|names"),
        ("yolo", "data.yaml", "0: cat", "5: cat", r"data\.yaml:4: names: found .*every class a name"),
        ("voc", "Annotations/train_a.xml", "<xmax>25</xmax>", "<xmax>1</xmax>", r"train_a\.xml: this is no annot"),
        ("voc", "Annotations/train_a.xml", "<annotation>", "", r"train_a\.xml: this is no annotation.*export it again"),
        ("voc", "ImageSets/Main/train.txt", "train_a", "train_z", r"train\.txt: lists 'train_z', but there is no file"),
        ("voc", "Annotations/train_a.xml", "train_a.png", "gone.png", ""),
    ],
)
def test_faults_are_named_with_their_file(
    layout: str, file: str, old: str, new: str, expected: str, tmp_path: Path
) -> None:
    LAYOUTS[layout][0](tmp_path / "set")
    path = tmp_path / "set" / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    if not expected:  # the image of the XML file's own name is taken
        assert _load(tmp_path / "set", tmp_path / "cache").train.image_path(0).name == "train_a.png"
        return
    with pytest.raises(AutoKDError, match=expected) as caught:
        _load(tmp_path / "set", tmp_path / "cache")
    assert isinstance(caught.value, (ConfigError, DataError))


def test_a_cache_that_cannot_hold_the_converted_set_is_named(tmp_path: Path) -> None:
    _make_yolo(tmp_path / "set")
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(DataError, match=r"cannot be written .*--cache-dir"):
        _load(tmp_path / "set", tmp_path / "cache")
