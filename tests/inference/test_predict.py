"""``autokd predict``: boxes equal those of the evaluation, in every form, for every way of naming images."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import autokd
from autokd.cli import app
from autokd.data import load_split, network_input
from autokd.errors import AutoKDError, ConfigError, DataError, StorageError
from autokd.inference import find_sources, load_trained
from tests.support.trained_samples import CATEGORY_IDS, CLASSES, SIZE_PX, write_coco, write_images, write_run


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a space and brackets in its name, a run and images in it."""
    folder = tmp_path_factory.mktemp("predict") / "my [first] place"
    write_run(folder / "run")
    write_images(folder / "photos [all]")
    return folder


def test_boxes_equal_those_of_the_evaluation(place: Path, tmp_path: Path):
    images = place / "photos [all]"
    split = load_split(write_coco(tmp_path, images), images, SIZE_PX)
    trained = load_trained(place / "run", cache_dir=tmp_path, device=torch.device("cpu"))
    found = autokd.predict(place / "run", [images], tmp_path / "out", forms=["coco"], threshold=0.1, cache_dir=tmp_path)
    rows = json.loads(Path(found["files"][0]).read_text())
    assert found["images"] == 3
    assert found["boxes"] == len(rows["annotations"]) > 30
    for index in range(3):
        (detections,) = trained.detector.detect(split.load(index).image[None])
        expected = [row for row in split.to_coco_results(index, detections) if row["score"] >= 0.1]
        given = [row for row in rows["annotations"] if row["image_id"] == index + 1]
        assert len(given) == len(expected) > 0
        for ours, theirs in zip(given, expected):
            assert ours["bbox"] == pytest.approx(theirs["bbox"], abs=1e-3)
            assert ours["score"] == pytest.approx(theirs["score"], abs=1e-5)
            assert ours["category_id"] == theirs["category_id"]


def test_input_is_the_data_sets_own(place: Path, tmp_path: Path):
    images = place / "photos [all]"
    split = load_split(write_coco(tmp_path, images), images, SIZE_PX)
    for index in range(3):
        assert torch.equal(network_input(split.image_path(index), SIZE_PX).pixels_CHW, split.load(index).pixels_CHW)


def test_pictures_csv_and_coco_are_written_by_the_command(place: Path, tmp_path: Path):
    arguments = ["predict", str(place / "run"), str(place / "photos [all]"), "--out", str(tmp_path / "o"), "--json"]
    done = CliRunner().invoke(app, [*arguments, "--threshold", "0.2"])
    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout)
    rows = list(csv.DictReader((tmp_path / "o" / "predictions.csv").open(encoding="utf-8")))
    coco = json.loads((tmp_path / "o" / "predictions.json").read_text())
    assert len(rows) == summary["boxes"] == len(coco["annotations"]) > 0
    assert [category["id"] for category in coco["categories"]] == list(CATEGORY_IDS)
    for row, annotation in zip(rows, coco["annotations"]):
        assert row["class"] == CLASSES[int(row["label"])]
        assert float(row["x1"]) - float(row["x0"]) == pytest.approx(annotation["bbox"][2], abs=0.02)
    pictures = sorted((tmp_path / "o").glob("*.jpg"))
    assert [path.stem for path in pictures] == ["photo 0 [a]", "photo 1 [a]", "photo 2 [a]"]
    with Image.open(pictures[0]) as picture:
        assert picture.size == (360, 240), "small images are enlarged"
        colors = {pixel for _, pixel in picture.quantize(16).convert("RGB").getcolors()}
    assert len(colors) > 4, "boxes are drawn"


def test_images_are_named_by_files_folders_and_globs(place: Path, monkeypatch: pytest.MonkeyPatch):
    images = place / "photos [all]"
    first = images / "photo 0 [a].png"
    assert find_sources([first]) == [first], "a path that exists is no glob"
    assert len(find_sources([images])) == 3
    assert len(find_sources([f"{place}/photos*/*.png".replace("[", "[[]")])) == 3
    assert find_sources([first, images])[0] == first
    assert len(find_sources([first, images])) == 3, "each file once"
    monkeypatch.setenv("HOME", str(place))
    assert find_sources(["~/photos [all]"]) == find_sources([images])
    with pytest.raises(DataError, match="no such file, folder or glob"):
        find_sources([place / "nothing*"])
    with pytest.raises(DataError, match="no images"):
        find_sources([place / "run"])


def test_turned_photographs_are_shown_upright(place: Path, tmp_path: Path):
    exif = Image.Exif()
    exif[274] = 6  # the camera was turned: rows are columns
    Image.new("RGB", (80, 40), (90, 120, 30)).save(tmp_path / "turned.jpg", exif=exif)
    assert network_input(tmp_path / "turned.jpg", SIZE_PX).original_size == (80, 40)


def test_frames_of_a_video_are_read(place: Path, tmp_path: Path):
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "street.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(5):
            frame = av.VideoFrame.from_image(Image.new("RGB", (64, 48), (40 * number, 100, 50)))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    counts: list[tuple[int, int | None]] = []
    found = autokd.predict(
        place / "run", [tmp_path / "street.mp4"], tmp_path / "out", every=2, cache_dir=tmp_path, threshold=0,
        on_image=lambda done, total: counts.append((done, total)),
    )  # fmt: skip
    assert found["images"] == 3
    assert counts == [(1, None), (2, None), (3, None)]
    coco = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [(row["frame"], row["height"], row["width"]) for row in coco["images"]] == [
        (0, 48, 64), (2, 48, 64), (4, 48, 64)
    ]  # fmt: skip
    assert sorted(path.name for path in (tmp_path / "out").glob("*.jpg")) == [f"street_{n:06d}.jpg" for n in (0, 2, 4)]
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    with pytest.raises(DataError, match="cannot be read as a video"):
        autokd.predict(place / "run", [tmp_path / "broken.mp4"], tmp_path / "out", cache_dir=tmp_path)


def test_what_is_missing_is_named(place: Path, tmp_path: Path):
    photos = [place / "photos [all]"]
    with pytest.raises(StorageError, match="no such run directory"):
        autokd.predict(tmp_path / "none", photos, tmp_path / "out", cache_dir=tmp_path)
    (tmp_path / "student.pt").write_bytes((place / "run" / "student.pt").read_bytes())
    with pytest.raises(ConfigError, match="--config"):
        autokd.predict(tmp_path / "student.pt", photos, tmp_path / "out", cache_dir=tmp_path)
    with pytest.raises(AutoKDError, match="pictures"):
        autokd.predict(place / "run", photos, tmp_path / "out", forms=["picture"], cache_dir=tmp_path)
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "config.yaml").write_text("name: x\n")
    with pytest.raises(StorageError, match="has not ended"):
        autokd.predict(tmp_path / "unfinished", photos, tmp_path / "out", cache_dir=tmp_path)


def test_weights_inside_a_run_need_no_config(place: Path, tmp_path: Path):
    trained = load_trained(place / "run" / "student.pt", cache_dir=tmp_path)
    assert trained.classes == CLASSES


def test_images_that_lie_across_the_input_have_it_turned_where_the_set_has_two_frames(place: Path, tmp_path: Path):
    (tmp_path / "run").mkdir()
    for name in ("student.pt", "config.yaml"):
        (tmp_path / "run" / name).write_bytes((place / "run" / name).read_bytes())
    card = json.loads((place / "run" / "student.json").read_text()) | {"has_two_frames": True}
    (tmp_path / "run" / "student.json").write_text(json.dumps(card))
    sizes = [
        tuple(network_input(path, SIZE_PX, has_two_frames=True).pixels_CHW.shape[1:])
        for path in sorted((place / "photos [all]").iterdir())
    ]
    assert sizes == [SIZE_PX, SIZE_PX[::-1], SIZE_PX], "the second photograph is upright"
    counts = [
        autokd.predict(folder / "run", [place / "photos [all]"], tmp_path / "o", threshold=0.1, cache_dir=tmp_path)
        for folder in (place, tmp_path)
    ]
    assert all(count["images"] == 3 for count in counts)
    rows = json.loads((tmp_path / "o" / "predictions.json").read_text())["annotations"]
    assert {row["image_id"] for row in rows} == {1, 2, 3}, "every image keeps its place"
