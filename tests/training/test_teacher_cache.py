"""The cached teacher is the live teacher, and a damaged cache is never believed."""

from __future__ import annotations

import errno
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
import torch

from autokd.config import Recipe
from autokd.detector_outputs import DetectorOutputs
from autokd.detectors import build_detector
from autokd.errors import DataError, NonFiniteError
from autokd.training.loader import Loader, training_plan
from autokd.training.seeds import random_stream
from autokd.training.teacher import cache as teacher_cache
from autokd.training.teacher import cache_build as teacher_cache_build
from autokd.training.teacher import obtain as teacher_module
from autokd.training.teacher.cache import LiveTeacher, open_or_build, sound_meta
from autokd.training.teacher.cache_key import FORMAT_VERSION, CacheKey, stored_taps
from autokd.training.teacher.obtain import Teacher, obtain_teacher

CPU = torch.device("cpu")
RECIPE = Recipe(num_views=3, scale_range=(0.7, 1.3))
KEY = CacheKey("teacher", "config", "data", "plan", (64, 64), ("boxes", "class_logits", "fpn"))
ALL_VIEWS = [(image, view) for image in range(8) for view in range(3)]


@pytest.fixture(scope="module")
def teacher(tiny_config, tiny_data):
    with random_stream(CPU, 0, "weights"):
        return build_detector(tiny_config.teacher, tiny_data.num_classes, (64, 64)).eval()


@pytest.fixture(scope="module")
def loader(tiny_data):
    return Loader(tiny_data.train, training_plan(tiny_data.train, RECIPE), 4, CPU)


@pytest.fixture(scope="module")
def built(tmp_path_factory, teacher, loader) -> Path:
    root = tmp_path_factory.mktemp("taps")
    open_or_build(root, KEY, loader, lambda: teacher)
    return root


@pytest.fixture
def root(tmp_path, built) -> Path:
    """A copy that a test may damage."""
    return shutil.copytree(built, tmp_path / "taps")


def never() -> None:
    raise AssertionError("a sound cache needs no teacher")


def test_cached_taps_are_the_live_teachers_on_the_same_view_up_to_float16(built, teacher, loader):
    cache = open_or_build(built, KEY, loader, never)
    live = LiveTeacher(teacher, KEY.taps)
    for batch in loader.epoch(seed=3, epoch=2):
        cached, expected = cache(batch), live(batch)
        assert list(cached.pyramid) == list(expected.pyramid)
        assert dict(cached.strides) == dict(expected.strides)
        assert cached.input_size_px == expected.input_size_px
        taps = [(cached.pyramid[level], expected.pyramid[level]) for level in expected.pyramid]
        taps += [(cached.class_logits, expected.class_logits), (cached.boxes, expected.boxes)]
        for found, wanted in taps:
            assert found.dtype == torch.float32
            # float16 keeps 11 bits; another batch's order of summation adds a little.
            torch.testing.assert_close(found, wanted, rtol=2**-10, atol=1e-4)
        torch.testing.assert_close(cached.boxes, expected.boxes, rtol=1e-6, atol=1e-4)


def test_different_views_of_an_image_have_different_taps(built, loader):
    cache = open_or_build(built, KEY, loader, never)
    maps_BCHW = cache.read([(0, 0), (0, 1), (0, 2)]).pyramid["p3"]
    assert not torch.allclose(maps_BCHW[0], maps_BCHW[1], atol=1e-3)


def test_files_have_a_place_for_every_image_and_view(built):
    array = np.load(built / KEY.folder_name / "level.p3.npy", mmap_mode="r")
    assert (array.shape, array.dtype) == ((8, 3, 16, 8, 8), np.float16)


@pytest.mark.parametrize("damage", ["truncated", "changed", "missing", "no meta", "other version"])
def test_a_damaged_cache_is_rebuilt(root, built, teacher, loader, damage):
    folder = root / KEY.folder_name
    path = folder / "level.p4.npy"
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "changed":
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(bytes(content))
    elif damage == "missing":
        path.unlink()
    elif damage == "no meta":
        (folder / "meta.json").unlink()
    else:
        meta = (folder / "meta.json").read_text()
        (folder / "meta.json").write_text(meta.replace(f'"version": {FORMAT_VERSION}', '"version": 0'))
    assert (sound_meta(folder) is None) == (damage != "changed"), "rows are compared when they are read"
    calls = []
    cache = open_or_build(root, KEY, loader, lambda: calls.append(1) or teacher)
    whole = open_or_build(built, KEY, loader, never)
    assert torch.equal(cache.read(ALL_VIEWS).pyramid["p4"], whole.read(ALL_VIEWS).pyramid["p4"])
    assert calls == [1]
    again = open_or_build(root, KEY, loader, never)
    assert torch.equal(again.read(ALL_VIEWS).pyramid["p4"], whole.read(ALL_VIEWS).pyramid["p4"])


def test_a_build_that_dies_is_no_cache_and_the_next_one_goes_on(tmp_path, built, teacher, loader):
    def die(done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_or_build(tmp_path, KEY, loader, lambda: teacher, die)
    assert sound_meta(tmp_path / KEY.folder_name) is None
    done = []
    cache = open_or_build(tmp_path, KEY, loader, lambda: teacher, lambda number, total: done.append(number))
    assert done == [5, 6], "of six batches, four were there"
    whole = open_or_build(built, KEY, loader, never)
    for level, map_BCHW in cache.read(ALL_VIEWS).pyramid.items():
        assert torch.equal(map_BCHW, whole.read(ALL_VIEWS).pyramid[level]), "bit for bit as in one go"
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [KEY.folder_name]


def test_all_who_need_a_cache_fill_it_together(tmp_path, built, teacher, loader, monkeypatch):
    """Threads in place of processes: each opens the locks' files itself, which is what the locks go by."""
    monkeypatch.setattr(teacher_cache_build, "SHARD_BATCHES", 1)
    meet, done = Barrier(2), [[], []]

    def fill(number: int):
        def progress(batch: int, total: int) -> None:
            done[number].append(batch)
            if len(done[number]) == 1:
                meet.wait(60)  # both have begun

        return open_or_build(tmp_path, KEY, loader, lambda: teacher, progress)

    with ThreadPoolExecutor(2) as pool:
        caches = list(pool.map(fill, range(2)))
    assert sorted(done[0] + done[1]) == [1, 2, 3, 4, 5, 6], "each batch once"
    assert done[0]
    assert done[1]
    whole = open_or_build(built, KEY, loader, never)
    for cache in caches:
        assert torch.equal(cache.read(ALL_VIEWS).class_logits, whole.read(ALL_VIEWS).class_logits)


def test_a_view_that_cannot_be_computed_again_is_an_error_with_its_folder(root, loader):
    path = root / KEY.folder_name / "level.p3.npy"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(bytes(content))

    def read_only() -> None:
        raise PermissionError(errno.EROFS, "Read-only file system")

    cache = open_or_build(root, KEY, loader, read_only)
    cache.read(ALL_VIEWS[:-1])
    with pytest.raises(DataError, match=r"1 views of the teacher's outputs are damaged.*Read-only.*--cache-dir"):
        cache.read(ALL_VIEWS)


@pytest.mark.parametrize(
    "change",
    [
        {"teacher_digest": "x"},
        {"teacher_config": "x"},
        {"dataset_fingerprint": "x"},
        {"plan_digest": "x"},
        {"image_size_px": (64, 96)},
        {"taps": ("fpn",)},
        {"dtype": "float32"},
        {"version": FORMAT_VERSION + 1},
    ],
)
def test_the_folder_depends_on_all_that_the_taps_depend_on(change):
    fields = {name: getattr(KEY, name) for name in KEY.__dataclass_fields__}
    assert CacheKey(**fields).folder_name == KEY.folder_name
    assert CacheKey(**{**fields, **change}).folder_name != KEY.folder_name


def test_a_teacher_beyond_float16_is_refused_by_tap_and_value(tmp_path, teacher, loader):
    class Loud:
        def __call__(self, images_BCHW, taps):
            outputs = teacher(images_BCHW, taps=("fpn",))
            return type(outputs)({k: v * 1e6 for k, v in outputs.pyramid.items()}, outputs.strides)

        def to(self, device):
            return self

        def eval(self):
            return self

    with pytest.raises(NonFiniteError, match=r"level\.p3 reaches .* float16"):
        open_or_build(tmp_path, KEY, loader, Loud)


class Fixed:
    """A teacher that gives the same taps of every image; it counts as built."""

    def __init__(self, **taps: torch.Tensor) -> None:
        self.taps_given = taps

    def __call__(self, images_BCHW, taps):
        alike = {name: tap.expand(len(images_BCHW), *tap.shape[1:]) for name, tap in self.taps_given.items()}
        return DetectorOutputs({"p3": torch.zeros(len(images_BCHW), 1, 8, 8)}, {"p3": 8}, **alike)

    def to(self, device):
        return self

    def eval(self):
        return self


def test_boxes_far_from_the_origin_come_back_to_the_bit(tmp_path, loader):
    """float16 would give 1025.25 as 1025, 2049 as 2048 and 100.03 as 100."""
    boxes = torch.tensor([[[100.03, 1025.25, 2049.0, 3001.7], [0.1, 0.2, 4095.9, 4095.95]]])
    assert not torch.equal(boxes.half().float(), boxes)
    key = replace(KEY, taps=("boxes", "fpn"))
    cache = open_or_build(tmp_path, key, loader, lambda: Fixed(boxes=boxes))
    assert torch.equal(cache.read([(3, 1), (7, 2)]).boxes, boxes.expand(2, -1, -1))


def test_boxes_beyond_float16_are_stored(tmp_path, loader):
    boxes = torch.full((1, 3, 4), 1e6)
    cache = open_or_build(tmp_path, replace(KEY, taps=("boxes", "fpn")), loader, lambda: Fixed(boxes=boxes))
    assert cache.read([(0, 0)]).boxes.unique().tolist() == [1e6]


def test_edge_logits_are_stored_and_absent_taps_stay_absent(tmp_path, loader):
    edges = torch.randn(1, 5, 4, 9).half().float()
    key = replace(KEY, taps=("boxes", "class_logits", "edge_logits", "fpn"))
    cache = open_or_build(tmp_path, key, loader, lambda: Fixed(edge_logits=edges))
    outputs = cache.read([(0, 0), (1, 1)])
    assert outputs.taps() == ("fpn", "edge_logits")
    assert torch.equal(outputs.edge_logits, edges.expand(2, -1, -1, -1))


def test_what_is_wanted_of_students_alone_or_held_once_is_not_stored():
    assert stored_taps(("proposals", "head", "fpn", "head_maps", "boxes")) == ("boxes", "fpn")
    with pytest.raises(DataError, match="taps head, proposals are not stored per image"):
        replace(KEY, taps=("fpn", "proposals", "head"))


def test_the_head_is_made_at_the_first_read_and_held(built, teacher, loader):
    made = []

    def make_head():
        made.append(teacher.cross_head())
        return made[-1]

    cache = open_or_build(built, KEY, loader, never, make_head=make_head)
    assert made == []
    first, second = cache.read([(0, 0)]), cache.read([(1, 1)])
    assert first.head is second.head is made[0]
    assert len(made) == 1
    # What it makes of the cached pyramid is what the teacher itself said, up to float16.
    class_logits, boxes = first.head.finish(first.head.begin(first.pyramid), first.input_size_px)
    torch.testing.assert_close(class_logits, first.class_logits, rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(boxes, first.boxes, rtol=1e-2, atol=0.2)


def test_without_a_maker_there_is_no_head(built, loader):
    assert open_or_build(built, KEY, loader, never).read([(0, 0)]).head is None


def test_a_teacher_gives_its_head_without_the_rest_and_none_if_it_has_none(tiny_config, tmp_path):
    for architecture in ("fcos", "faster_rcnn"):
        config = tiny_config.teacher.model_copy(update={"architecture": architecture})
        found = Teacher(config, 6, (64, 64), tmp_path, "digest", 0.0, False).build_head(CPU)
        assert (found is not None) == (architecture == "fcos")
        assert found is None or not any("backbone" in name for name in found.state_dict())


def test_a_teachers_checkpoint_is_matched_by_the_names_of_the_data_sets_classes(
    tiny_config, tiny_data, teacher, tmp_path, monkeypatch
):
    torch.save(teacher.plain_state_dict(), tmp_path / "weights.pt")
    config = tiny_config.teacher.model_copy(update={"checkpoint": tmp_path / "weights.pt", "train": None})
    found = obtain_teacher(config, tiny_data.train, tmp_path, CPU)
    seen = []
    monkeypatch.setattr(teacher_module, "build_detector", lambda *given: seen.append(given) or teacher)
    found.build(CPU)
    assert seen == [(config, len(tiny_data.train.classes), (64, 64), tiny_data.train.classes)]


def test_a_full_disk_is_named_before_anything_is_written(tmp_path, teacher, loader, monkeypatch):
    free = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(teacher_cache.shutil, "disk_usage", lambda path: free)
    with pytest.raises(DataError, match=r"8 images in 3 views need .* lower num_views"):
        open_or_build(tmp_path, KEY, loader, lambda: teacher)


class PaddingTeacher(torch.nn.Module):
    """Its input is padded beyond the image, as that of detectors whose coarsest cells do not divide it."""

    def forward(self, images_BCHW, targets=None, taps=()):
        return DetectorOutputs({"p4": torch.ones(len(images_BCHW), 2, 5, 6)}, {"p4": 16}, image_size_px=(75, 91))


def test_cached_taps_tell_the_padded_input_that_they_describe(tmp_path, loader):
    key = replace(KEY, teacher_digest="padding", taps=("fpn",))
    cache = open_or_build(tmp_path, key, loader, PaddingTeacher)
    assert cache.read([(0, 0)]).input_size_px == (75, 91) != key.image_size_px
