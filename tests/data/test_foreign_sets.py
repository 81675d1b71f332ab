"""A data set of unknown origin leads to no file outside its folder, and to none that would hang a reader."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from PIL import Image

from autokd.data.annotation_file import read_annotation_file
from autokd.errors import DataError


@pytest.fixture
def private(tmp_path: Path) -> Path:
    """A picture of the reader's own, of the size that the set states."""
    path = tmp_path / "private" / "secret.png"
    path.parent.mkdir()
    Image.new("RGB", (60, 40), (1, 2, 3)).save(path)
    return path


@pytest.mark.parametrize(
    "name",
    [
        "../../private/secret.png",
        "a/../../../private/secret.png",
        "..",
        "a\\..\\..\\..\\private\\secret.png",
        "/etc/passwd",
        "\\\\server\\share\\secret.png",
        "C:/secret.png",
        "C:secret.png",
        "",
        "a\0.png",
        "a\n.png",
        "\ud800.png",
        "x" * 5000,
        "x/" * 3000 + "y.png",
    ],
)
@pytest.mark.parametrize("with_size", [True, False])
def test_a_name_that_leads_elsewhere_is_refused_before_a_file_is_opened(coco, private, name, with_size):
    coco.data["images"][0]["file_name"] = name
    if not with_size:
        del coco.data["images"][0]["width"], coco.data["images"][0]["height"]
    with pytest.raises(DataError, match=r"image 1: file_name .*Images lie within data\.images") as caught:
        coco.load()
    assert len(str(caught.value)) < 2000


def test_the_absolute_name_of_a_picture_elsewhere_is_refused(coco, private):
    coco.data["images"][0]["file_name"] = str(private)
    with pytest.raises(DataError, match="is no path from data"):
        coco.load()


@pytest.mark.parametrize("name", ["a/b/1.png", "a..b.png", "...png", "été 1.png", "-1.png"])
def test_ordinary_names_in_subfolders_are_read(coco, name):
    old = coco.image_path(1)
    new = coco.root / "images" / name
    new.parent.mkdir(parents=True, exist_ok=True)
    old.rename(new)
    coco.data["images"][0]["file_name"] = name
    dataset = coco.load()
    dataset.check()
    assert dataset.load(0).image.shape == (3, 40, 60)


@pytest.mark.parametrize("link", ["file", "folder"])
def test_a_link_in_the_folder_that_leads_out_is_refused(coco, private, link):
    if link == "file":
        coco.image_path(1).unlink()
        coco.image_path(1).symlink_to(private)
    else:
        (coco.root / "images" / "more").symlink_to(private.parent)
        coco.data["images"][0]["file_name"] = "more/secret.png"
    dataset = coco.load()
    for read in (dataset.check, lambda: dataset.load(0), lambda: dataset.image_path(0)):
        with pytest.raises(DataError, match=r"leads out of data\.images.*hard link"):
            read()


def test_links_within_the_folder_and_a_linked_folder_are_followed(coco, tmp_path):
    inside = coco.root / "images" / "kept" / "1.png"
    inside.parent.mkdir()
    coco.image_path(1).rename(inside)
    coco.image_path(1).symlink_to(inside)
    (coco.root / "images").rename(tmp_path / "elsewhere")
    (coco.root / "images").symlink_to(tmp_path / "elsewhere")
    inside = tmp_path / "elsewhere" / "kept" / "1.png"
    (tmp_path / "elsewhere" / "1.png").unlink()
    (tmp_path / "elsewhere" / "1.png").symlink_to(inside)
    dataset = coco.load()
    dataset.check()
    assert dataset.load(0).image.shape == (3, 40, 60)


def test_a_hard_link_is_the_file_itself(coco, private):
    coco.image_path(1).unlink()
    os.link(private, coco.image_path(1))
    coco.load().check()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("with_size", [True, False])
def test_a_pipe_in_the_place_of_an_image_does_not_hang(coco, with_size):
    coco.image_path(1).unlink()
    os.mkfifo(coco.image_path(1))
    if not with_size:
        del coco.data["images"][0]["width"], coco.data["images"][0]["height"]
    began = time.monotonic()
    with pytest.raises(DataError, match="a pipe or a device"):
        coco.load().check()
    assert time.monotonic() - began < 60


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_in_the_place_of_the_annotations_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "train.json")
    with pytest.raises(DataError, match="a pipe or a device"):
        read_annotation_file(tmp_path / "train.json")


def test_numbers_beyond_64_bits_and_endless_lists_are_errors_of_the_data(coco):
    for key, value in (("bbox", [0, 0, 10**400, 5]), ("area", 10**400)):
        before = dict(coco.data["annotations"][0])
        coco.data["annotations"][0][key] = value
        if key == "area":
            assert len(coco.load()) == 3  # an area that cannot be is filled in, as one that is missing
        else:
            with pytest.raises(DataError, match="not four finite numbers"):
                coco.load()
        coco.data["annotations"][0] = before
    coco.data["images"][0]["width"] = 10**400
    with pytest.raises(DataError, match="not a number of pixels"):
        coco.load()
    path = coco.root / "deep.json"
    path.write_text("[" * 200_000)
    with pytest.raises(DataError, match=r"too deep|no JSON"):
        read_annotation_file(path)
    path.write_text(json.dumps([]))
    with pytest.raises(DataError, match="no list"):
        read_annotation_file(path)
