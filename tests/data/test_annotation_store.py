"""What the cache keeps of annotations and image files: made once, shared, noticed when stale, healed when damaged."""

from __future__ import annotations

import json
import logging
import math
import multiprocessing
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from autokd.data import array_store, columns, dataset, image_files, load_datasets, load_split, parsed_file
from autokd.data.annotation_file import read_annotation_file
from autokd.data.parsed_file import parse_annotation_file
from autokd.errors import DataError


@pytest.fixture
def config(coco: Any) -> Any:
    coco.write()
    coco.data["annotations"][0]["bbox"] = [1, 2, 30, 20]
    coco.write("val.json")
    return coco.config().model_copy(update={"val": Path("val.json")})


def _nothing_is_read(monkeypatch: Any) -> None:
    def refuse(*args: Any, **options: Any) -> Any:
        raise AssertionError(f"read again: {args}")

    for module, name in ((columns, "parse_annotation_file"), (dataset, "read_header"), (image_files, "sample_digest"),
                         (image_files, "stamps_of"), (columns, "file_digest_by_sample")):  # fmt: skip
        monkeypatch.setattr(module, name, refuse)


def _same(one: Any, other: Any) -> None:
    assert one.classes == other.classes
    for ours, theirs in zip(one.splits, other.splits, strict=True):
        assert (ours.image_ids, ours.category_ids, ours.fingerprint) == (
            theirs.image_ids,
            theirs.category_ids,
            theirs.fingerprint,
        )
        for index in range(ours.num_images):
            assert ours.image_path(index) == theirs.image_path(index)
            assert torch.equal(ours.target(index)["boxes"], theirs.target(index)["boxes"])
            assert torch.equal(ours.target(index)["labels"], theirs.target(index)["labels"])
        assert ours.ground_truth().dataset == theirs.ground_truth().dataset


def test_a_worker_reads_no_file_of_the_set(config: Any, tmp_path: Path, monkeypatch: Any) -> None:
    driver = load_datasets(config, tmp_path / "cache")
    stored = pickle.loads(pickle.dumps(driver.stored))
    assert set(stored) == {"train", "val"}
    (config.root / "train.json").unlink()
    shutil.rmtree(config.root / "images")
    _nothing_is_read(monkeypatch)
    worker = load_datasets(config, tmp_path / "cache", check=False, stored=stored)
    _same(driver, worker)
    assert worker.test_is_val


def test_columns_are_maps_of_files_that_processes_share(config: Any, tmp_path: Path) -> None:
    split = load_datasets(config, tmp_path / "cache").train.split
    for array in (split.columns.boxes_xyxy_px, split.labels, split.columns.image_ids):
        owner = array
        while isinstance(owner, np.ndarray) and not isinstance(owner, np.memmap):
            owner = owner.base
        assert isinstance(owner, np.memmap)
        assert not array.flags.writeable


def test_a_worker_on_a_machine_without_the_cache_reads_the_set(config: Any, tmp_path: Path) -> None:
    driver = load_datasets(config, tmp_path / "cache")
    worker = load_datasets(config, tmp_path / "elsewhere", check=False, stored=driver.stored)
    _same(driver, worker)


def test_the_second_run_opens_no_header_and_parses_nothing(config: Any, tmp_path: Path, monkeypatch: Any) -> None:
    first = load_datasets(config, tmp_path / "cache")
    reports = [split.report for split in first.splits]
    monkeypatch.setattr(columns, "parse_annotation_file", lambda *_: pytest.fail("parsed again"))
    monkeypatch.setattr(dataset, "read_header", lambda *_: pytest.fail("opened again"))
    second = load_datasets(config, tmp_path / "cache")
    _same(first, second)
    assert [split.report for split in second.splits] == reports


def test_every_header_is_opened_once(config: Any, tmp_path: Path, monkeypatch: Any) -> None:
    real, opened = dataset.read_header, []
    monkeypatch.setattr(dataset, "read_header", lambda path, **more: (opened.append(path), real(path, **more))[1])
    data = load_datasets(config.model_copy(update={"val": config.train}), tmp_path / "cache")
    data.check()
    _ = [split.fingerprint for split in data.at_size((32, 48)).splits]
    assert sorted(path.name for path in opened) == ["1.png", "2.png", "3.png"]


def test_each_warning_is_logged_once(config: Any, coco: Any, tmp_path: Path, caplog: Any) -> None:
    for row in coco.data["annotations"]:
        row.pop("area")
    coco.write()
    with caplog.at_level(logging.INFO, logger="autokd.data"):
        load_datasets(config, tmp_path / "cache")
    assert caplog.text.count("without a usable 'area'") == 1


def test_a_changed_annotation_file_is_read_again(config: Any, coco: Any, tmp_path: Path) -> None:
    before = load_datasets(config, tmp_path / "cache").train
    coco.data["annotations"][1]["category_id"] = 1  # no byte more or less
    coco.write()
    after = load_datasets(config, tmp_path / "cache").train
    assert (before.target(0)["labels"].tolist(), after.target(0)["labels"].tolist()) == ([0, 1], [0, 0])
    assert after.fingerprint != before.fingerprint


def test_a_changed_image_is_looked_at_again(config: Any, coco: Any, tmp_path: Path) -> None:
    before = load_datasets(config, tmp_path / "cache").train.fingerprint
    os.utime(coco.image_path(2), ns=(1, 1))
    assert load_datasets(config, tmp_path / "cache").train.fingerprint == before, "a time is no content"
    Image.fromarray(np.zeros((40, 60), dtype=np.uint8)).save(coco.image_path(2))
    after = load_datasets(config, tmp_path / "cache").train
    assert after.fingerprint != before
    assert after.report.gray_images == 1
    coco.image_path(3).unlink()
    with pytest.raises(DataError, match=r"image 3: .*3\.png: no such image"):
        load_datasets(config, tmp_path / "cache")


def test_a_size_that_the_json_lacks_follows_the_image(config: Any, coco: Any, tmp_path: Path) -> None:
    for image in coco.data["images"]:
        del image["width"]
    coco.write()
    config = config.model_copy(update={"val": config.train})
    assert load_datasets(config, tmp_path / "cache").train.original_size(1) == (40, 60)
    Image.fromarray(np.zeros((80, 90, 3), dtype=np.uint8)).save(coco.image_path(2))
    assert load_datasets(config, tmp_path / "cache").train.original_size(1) == (80, 90)


def _replace(path: Path, content: bytes) -> None:
    """Put another file in a file's place: the first one may be mapped into memory."""
    path.with_suffix(".new").write_bytes(content)
    path.with_suffix(".new").replace(path)


@pytest.mark.parametrize("harm", ["cut", "flip", "no_meta", "broken_meta", "other_version", "gone"])
@pytest.mark.parametrize("kind", ["annotations", "image_files"])
def test_a_damaged_store_is_refused_and_made_again(config: Any, tmp_path: Path, harm: str, kind: str) -> None:
    cache = tmp_path / "cache"
    whole = load_datasets(config, cache)
    stored = whole.stored
    for folder in (cache / kind).iterdir():
        if folder.is_file():
            continue
        array = folder / ("boxes_xyxy_px.npy" if kind == "annotations" else "samples.npy")
        content = array.read_bytes()
        if harm == "cut":
            _replace(array, content[:-8])
        elif harm == "flip":
            _replace(array, content[:-1] + bytes([content[-1] ^ 1]))
        elif harm == "no_meta":
            (folder / "meta.json").unlink()
        elif harm == "broken_meta":
            (folder / "meta.json").write_text('{"version": 1, "arrays": {"x": 3}}')
        elif harm == "other_version":
            meta = json.loads((folder / "meta.json").read_text())
            (folder / "meta.json").write_text(json.dumps(meta | {"version": 0}))
        else:
            array.unlink()
    _same(whole, load_datasets(config, cache, check=False, stored=stored))
    # Healed: a worker finds it.
    assert columns.open_columns(stored["train"].annotations, cache) is not None
    assert image_files.open_files(stored["val"].files, cache) is not None


def test_a_cache_that_cannot_be_written_leaves_everything_in_memory(config: Any, tmp_path: Path, caplog: Any) -> None:
    whole = load_datasets(config, tmp_path / "cache")
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    for name in ("annotations", "image_files"):  # a file where the folder would be: also root cannot write there
        (blocked / name).write_text("")
    data = load_datasets(config, blocked)
    _same(whole, data)
    assert data.stored == {}
    assert "cannot be written" in caplog.text
    assert "--cache-dir" in caplog.text


def test_a_read_only_cache_that_has_the_set_is_used(config: Any, tmp_path: Path, monkeypatch: Any) -> None:
    whole = load_datasets(config, tmp_path / "cache")

    def read_only(*args: Any, **options: Any) -> Any:
        raise PermissionError("read-only file system")

    monkeypatch.setattr(array_store, "exclusive_lock", read_only)
    monkeypatch.setattr(array_store, "atomic_folder", read_only)
    _same(whole, load_datasets(config, tmp_path / "cache"))


def _load_and_answer(config: Any, cache: Path, barrier: Any, answers: Any) -> None:
    parsed = []
    real = columns.parse_annotation_file
    columns.parse_annotation_file = lambda path: (parsed.append(path), real(path))[1]  # type: ignore[assignment]
    barrier.wait()
    data = load_datasets(config, cache)
    answers.put((len(parsed), [split.fingerprint for split in data.splits]))


def test_of_processes_that_start_at_once_one_parses_and_all_agree(config: Any, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier, answers = context.Barrier(3), context.Queue()
    workers = [
        context.Process(target=_load_and_answer, args=(config, tmp_path / "cache", barrier, answers)) for _ in range(3)
    ]
    for worker in workers:
        worker.start()
    found = [answers.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join()
    assert sum(count for count, _ in found) == 2, "each of the two files is parsed by one process"
    assert len({tuple(prints) for _, prints in found}) == 1


def test_without_the_cache_the_split_is_the_same(config: Any, tmp_path: Path) -> None:
    kept = load_datasets(config, tmp_path / "cache").train
    alone = load_split(config.root / "train.json", config.root / "images", (40, 60))
    assert alone.fingerprint == kept.fingerprint
    assert alone.report == kept.split.report.adding(too_small_boxes=0)


def test_both_readers_of_the_json_agree(coco: Any, monkeypatch: Any) -> None:
    rng = np.random.default_rng(5)
    rows = []
    for number in range(60):
        row = {
            "id": 1000 - number, "image_id": int(rng.integers(1, 4)), "category_id": int(rng.integers(1, 3)),
            "bbox": [round(float(v), 2) for v in rng.uniform(-5, 50, 4)],
        }  # fmt: skip
        row |= [{"area": 7.5}, {"area": -1}, {"area": None}, {"area": "x"}, {"area": True}, {}][number % 6]
        row |= [{"iscrowd": 0}, {"iscrowd": 1}, {"iscrowd": None}, {}, {"iscrowd": True}][number % 5]
        row |= {"segmentation": [[1, 2, 3, 4, 5, 6]], "keypoints": {"a": 1}}
        rows.append(row)
    coco.data["annotations"] = rows
    coco.data["images"].reverse()
    coco.data["images"][1]["width"] = None
    path = coco.write()
    read_slowly = []
    monkeypatch.setattr(
        parsed_file, "read_annotation_file", lambda path: (read_slowly.append(path), read_annotation_file(path))[1]
    )
    fast = parse_annotation_file(path)
    assert not read_slowly
    rows[0]["area"] = math.nan  # which JSON does not have, and Python's reader accepts
    slow = parse_annotation_file(coco.write())
    assert read_slowly
    assert (fast.file_names, fast.class_names, fast.missing_iscrowd) == (
        slow.file_names,
        slow.class_names,
        slow.missing_iscrowd,
    )
    for name in ("image_ids", "sizes", "category_ids", "image_of", "rank_of", "boxes_xywh", "is_crowd"):
        np.testing.assert_array_equal(getattr(fast, name), getattr(slow, name))
    np.testing.assert_array_equal(fast.areas[1:], slow.areas[1:])
    # And both are what the file says.
    assert fast.image_ids[fast.image_of].tolist() == [row["image_id"] for row in rows]
    assert fast.boxes_xywh.tolist() == [row["bbox"] for row in rows]
    assert fast.areas[:6].tolist()[0] == 7.5
    assert np.isnan(fast.areas[1:6]).all()
    assert fast.is_crowd[:5].tolist() == [False, True, False, False, True]


def test_ids_beyond_64_bits_are_refused(coco: Any) -> None:
    coco.data["annotations"][0]["id"] = 2**70
    with pytest.raises(DataError, match="beyond 64 bits"):
        coco.load()


def test_boxes_below_half_a_pixel_are_counted_as_they_are_left_out(coco: Any) -> None:
    rng = np.random.default_rng(3)
    coco.data["annotations"] = [
        {"id": i, "image_id": 1 + i % 3, "category_id": 1, "iscrowd": int(i % 7 == 0),
         "bbox": [*map(float, rng.uniform(0, 30, 2)), *map(float, rng.exponential(1.0, 2))]}
        for i in range(90)
    ]  # fmt: skip
    for size in ((40, 60), (64, 64), (33, 97)):
        split = coco.load(size)
        trained = sum(len(split.target(index)["labels"]) for index in range(3))
        assert split.report.too_small_boxes == split.report.num_boxes - trained > 0
