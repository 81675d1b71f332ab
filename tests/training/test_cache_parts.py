"""Caches hold the views that trainings show and no others; their sizes are known to the byte beforehand."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from autokd.config import Recipe
from autokd.data import subset_indices
from autokd.errors import DataError
from autokd.jobs import Job, WorkerResources
from autokd.presets import load_preset
from autokd.training import TrainingEvaluatorFactory, prepare
from autokd.training.assets import TrainingAssets
from autokd.training.assets.teacher_outputs import OutputNeeds
from autokd.training.length import Length, training_length
from autokd.training.loader import Loader, training_plan
from autokd.training.seeds import stream_seed
from autokd.training.teacher.cache_bytes import array_forms, cache_bytes, reserve
from autokd.training.teacher.part import Part, num_shown_views

CPU = torch.device("cpu")
QUARTER = {"subset": 0.25, "flip_probability": 0.25, "warm_start": None}
"""A proxy on 2 of 8 images, in other views than full trainings have."""


@pytest.fixture
def quarter(make_tiny_config):
    return make_tiny_config(proxy=QUARTER)


def npy_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.npy"))


# ------------------------------------------------------------------------------------------------ parts


def test_a_part_finds_the_row_of_each_view_and_names_one_it_lacks():
    part = Part.of([(7, 1), (2, 0), (7, 0), (2, 0)], num_views=3)
    assert part.pairs() == [(2, 0), (7, 0), (7, 1)]
    assert part.rows([(7, 1), (2, 0), (7, 1)]).tolist() == [2, 0, 2]
    for pair in ((2, 1), (9, 0), (0, 0)):
        with pytest.raises(DataError, match=f"view {pair[1]} of image {pair[0]} is not among the 3 views"):
            part.rows([(7, 0), pair])


def test_parts_of_other_views_have_other_digests():
    views = [(2, 0), (7, 0), (7, 1)]
    digest = Part.of(views, 3).digest
    assert Part.of(reversed(views), 3).digest == digest
    assert len({digest, Part.of(views[:2], 3).digest, Part.of([(2, 0), (7, 0), (7, 2)], 3).digest}) == 3
    assert Part.of([(0, 5)], 6).digest != Part.of([(0, 5)], 7).digest


def test_the_cache_of_a_proxy_holds_what_its_seed_shows_and_nothing_else(quarter, tiny_data, tiny_cache):
    assets = TrainingAssets(quarter, tiny_cache, CPU, tiny_data)
    for seed in (0, 1):
        part = assets.shown_part("proxy", seed)
        chosen = subset_indices(8, 0.25, stream_seed(seed, "proxy"))
        assert part.pairs() == [(image, view) for image in chosen for view in (0, 1)]
        cache = assets.teachers.training_cache("proxy", part=part)
        array = np.load(cache.folder / "level.p3.npy", mmap_mode="r")
        assert array.shape == (4, 16, 8, 8)
        [batch] = assets.proxy_loader().of_pairs([part.pairs()[::-1]])
        live = assets.teachers.first.build(CPU)(batch.images_BCHW, taps=("fpn",))
        for level, map_BCHW in cache(batch).pyramid.items():
            torch.testing.assert_close(map_BCHW, live.pyramid[level], rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize("rule", ["random", "stratified", "k_center"])
def test_a_training_reads_its_part_as_it_would_read_the_whole(
    make_tiny_config, tiny_data, tiny_cache, tmp_path, run_job, rule, monkeypatch
):
    config = make_tiny_config(proxy={**QUARTER, "subset": 0.5, "subset_rule": rule, "epochs": 1, "reward": ("cka",)})
    job = Job("t", load_preset("fitnet").with_gradient_ratio(20), "proxy", seed=3)

    def run() -> dict[str, float]:
        evaluator = TrainingEvaluatorFactory(config, tiny_cache, tmp_path / "run", tiny_data)(WorkerResources())
        _, outcome = run_job(evaluator, job)
        assert outcome.status == "finished", outcome.message
        return {name: value for name, value in outcome.metrics.items() if name != "train_seconds"}

    parted = run()
    monkeypatch.setattr(OutputNeeds, "holds_all", lambda self, recipe: True)
    assert run() == pytest.approx(parted, rel=1e-3)


def test_proxies_read_the_full_trainings_cache_if_it_holds_their_views(make_tiny_config, tiny_data, tiny_cache):
    shared = make_tiny_config(proxy={**QUARTER, "flip_probability": 0.5})
    assets = TrainingAssets(shared, tiny_cache, CPU, tiny_data)
    assert assets.shown_part("proxy", 0) is None
    assert assets.teachers.training_cache("proxy").folder == assets.teachers.training_cache("full").folder


def test_a_full_training_of_few_images_caches_these(make_tiny_config, tiny_data, tiny_cache):
    config = make_tiny_config(full={"images": 3, "batch_size": 2, "seeds": [0]})
    assets = TrainingAssets(config, tiny_cache, CPU, tiny_data)
    shown = [pair for batch in assets.data.training_loader("full").epoch(0, 1, 2) for pair in batch.pairs]
    assert assets.shown_part("full", 0).pairs() == sorted(shown)
    assert len(shown) == 4


# ------------------------------------------------------------------------------------------------ bytes


def test_a_files_size_is_known_to_the_byte(tmp_path):
    for shape, dtype, leading in [
        ((16, 8, 9), "float16", (7, 3)),
        ((123, 4), "float32", (100_000,)),
        ((5,), "float16", (1,)),
    ]:
        [form] = array_forms({"boxes" if dtype == "float32" else "level.p3": shape}).values()
        assert form.dtype == dtype
        path = tmp_path / "array.npy"
        np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=(*leading, *shape)).flush()
        assert path.stat().st_size == form.file_bytes(leading)


def test_coco_at_640_px_takes_a_terabyte_and_two_percent_of_it_a_fiftieth():
    # Strides 8 to 128, 256 channels, two bytes: 4.37 MB a view.
    forms = array_forms({f"level.p{k}": (256, 640 // 2**k, 640 // 2**k) for k in range(3, 8)})
    assert sum(form.bytes_per_view for form in forms.values()) == 2 * 256 * (80**2 + 40**2 + 20**2 + 10**2 + 5**2)
    assert cache_bytes(forms, (118_287, 2)) / 1e12 == pytest.approx(1.03, abs=0.005)
    assert cache_bytes(forms, (2 * 2366,)) / 1e9 == pytest.approx(20.7, abs=0.1)


@pytest.mark.parametrize(
    ("proxy", "full", "views"),
    [
        (QUARTER, {}, [(8, 2), (6, 1), (4,)]),
        ({**QUARTER, "val_subset": 0.5}, {"num_views": "endless"}, [(3,), (4,)]),
        ({**QUARTER, "reward": ("ap",)}, {"num_views": "endless"}, [(4,)]),
        ({**QUARTER, "subset": 1.0, "images": 3, "epochs": 2}, {"num_views": "endless"}, [(6, 1), (4,)]),
        ({"epochs": 2}, {}, [(8, 2), (6, 1)]),
        ({"epochs": 1}, {"num_views": "endless"}, [(6, 1), (8, 2)]),
    ],
)
def test_what_a_run_reads_is_counted_before_anything_is_computed(
    make_tiny_config, tiny_data, tmp_path, proxy, full, views
):
    config = make_tiny_config(proxy=proxy, full=full)
    needs = list(OutputNeeds(config, 8, 6).caches())
    assert sorted(need.leading for need in needs) == sorted(views)
    prepare(config, tiny_data, tmp_path)
    forms = array_forms({"level.p3": (16, 8, 8), "level.p4": (16, 4, 4), "level.p5": (16, 2, 2)})
    written = {folder.name: npy_bytes(folder) for folder in (tmp_path / "teacher_taps").iterdir() if folder.is_dir()}
    assert sorted(written.values()) == sorted(cache_bytes(forms, need.leading) for need in needs)


def test_nothing_is_cached_for_proxies_where_nothing_is_searched(tiny_config):
    config = tiny_config.model_copy(update={"proxy": tiny_config.proxy.model_copy(update={"image_size_px": (32, 64)})})
    splits = [need.split for need in OutputNeeds(config, 8, 6).caches(searches=False)]
    assert splits == ["validation", "training"]
    assert len(list(OutputNeeds(config, 8, 6).caches())) == 4


@pytest.mark.parametrize("num_views", [1, 2, 5])
@pytest.mark.parametrize(("epochs", "most_steps"), [(1, None), (2, None), (3, 4), (7, 19), (4, 1)])
def test_lengths_and_shown_views_are_those_of_the_loader(tiny_data, num_views, epochs, most_steps):
    loader = Loader(tiny_data.train, training_plan(tiny_data.train, Recipe(num_views=num_views)), 3, CPU)
    seen, steps, reported = [], 0, 0
    for epoch in range(1, epochs + 1):
        left = None if most_steps is None else most_steps - steps
        if left == 0:
            break
        batches = list(loader.epoch(4, epoch, left))
        seen += [pair for batch in batches for pair in batch.pairs]
        steps, reported = steps + len(batches), reported + 1
    length = training_length(8, 3, epochs, most_steps)
    assert length == Length(reported, steps, len(seen))
    assert loader.shown(4, epochs, length.steps) == set(seen)
    assert num_shown_views(8, num_views, len(seen)) == len(set(seen))


def test_a_file_that_is_reserved_has_its_blocks(tmp_path):
    path = tmp_path / "array.npy"
    np.lib.format.open_memmap(path, mode="w+", dtype="float16", shape=(1 << 20,))
    reserve(path, path.stat().st_size)
    assert path.stat().st_blocks * 512 >= 1 << 21


def test_a_disk_without_room_is_refused_before_the_teacher_is_trained(
    make_tiny_config, tiny_data, tmp_path, monkeypatch
):
    free = shutil.disk_usage(tmp_path)._replace(free=20_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    with pytest.raises(DataError, match=r"the teachers' outputs that this run reads .* full.num_views to endless"):
        prepare(make_tiny_config(), tiny_data, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
