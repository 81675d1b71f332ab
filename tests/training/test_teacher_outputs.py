"""A teacher's outputs give the same training from disk, from memory and live; the place is the one that costs least."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from typer.testing import CliRunner

from autokd.cli.app import app
from autokd.config import CacheConfig, RunConfig
from autokd.errors import DataError
from autokd.jobs import Job, WorkerResources
from autokd.presets import load_preset
from autokd.training import TrainingEvaluatorFactory
from autokd.training.assets.teacher_outputs import OutputNeeds
from autokd.training.assets.teachers import TAPS_FOLDER
from autokd.training.cost import places
from autokd.training.cost.places import Speeds, Uses, cheapest, costs_of, disk_speeds, place_costs
from autokd.training.teacher import memory
from autokd.training.teacher.cache_room import hold, make_room, stored_outputs
from autokd.training.teacher.number_format import narrowed, widened

CPU = torch.device("cpu")
PROXY = {"epochs": 2, "warm_start": None, "reward": ("cka",), "measure": "last_epoch"}


def config_at(make_tiny_config, place: str, **cache):
    full = {"teacher_outputs": place, "seeds": [0]}
    return make_tiny_config(proxy={**PROXY, "teacher_outputs": place}, full=full, cache=cache)


def metrics_of(config, data, cache, tmp_path, run_job, jobs=2):
    evaluator = TrainingEvaluatorFactory(config, cache, tmp_path / "run", data)(WorkerResources())
    found = []
    for number in range(jobs):
        _, outcome = run_job(evaluator, Job(f"t{number}", load_preset("pkd").with_gradient_ratio(8), "proxy"))
        assert outcome.status == "finished", outcome.message
        found.append({name: value for name, value in outcome.metrics.items() if name != "train_seconds"})
    return found, evaluator.assets


def test_a_training_is_the_same_wherever_the_outputs_come_from(
    make_tiny_config, tiny_data, tiny_cache, tmp_path, run_job
):
    [stored], _ = metrics_of(config_at(make_tiny_config, "disk"), tiny_data, tiny_cache, tmp_path, run_job, 1)
    kept, assets = metrics_of(config_at(make_tiny_config, "memory"), tiny_data, tiny_cache, tmp_path, run_job)
    [live], _ = metrics_of(config_at(make_tiny_config, "live"), tiny_data, tiny_cache, tmp_path, run_job, 1)
    assert kept[0] == kept[1], "the second training reads what the first has computed"
    assert kept[0] == pytest.approx(stored, rel=1e-3)
    assert live == pytest.approx(stored, rel=5e-3), "float32 in place of float16"
    taps = assets.teachers.training_taps("proxy", ("fpn",), part=assets.shown_part("proxy", 0))
    [batch] = assets.proxy_loader().of_pairs([assets.shown_part("proxy", 0).pairs()[:4]])
    batch.images_BCHW.fill_(math.nan)
    assert all(bool(level.isfinite().all()) for level in taps(batch).pyramid.values()), "nothing is computed again"


@pytest.mark.parametrize("place", ["live", "memory"])
def test_nothing_is_stored_where_nothing_is_read(make_tiny_config, place):
    assert list(OutputNeeds(config_at(make_tiny_config, place), 8, 6).caches()) == []


def test_views_that_never_come_again_are_not_kept(make_tiny_config):
    with pytest.raises(ValidationError, match="found 'disk', and num_views is endless"):
        make_tiny_config(full={"num_views": "endless", "teacher_outputs": "disk"})
    with pytest.raises(ValidationError, match="full_processes is 2: each reads the teacher's outputs"):
        make_tiny_config(full={"teacher_outputs": "live"}, runtime={"full_processes": 2})


def test_memory_that_is_too_small_is_named_before_it_is_taken(
    make_tiny_config, tiny_data, tiny_cache, tmp_path, run_job, monkeypatch
):
    monkeypatch.setattr(memory, "free_memory", lambda device: 1000)
    config = config_at(make_tiny_config, "memory")
    evaluator = TrainingEvaluatorFactory(config, tiny_cache, tmp_path / "run", tiny_data)(WorkerResources())
    _, outcome = run_job(evaluator, Job("t", load_preset("fitnet").with_gradient_ratio(8), "proxy"))
    assert "teacher_outputs: memory needs" in outcome.message


# ------------------------------------------------------------------------------------------------ int8


def test_int8_is_within_half_a_step_of_each_channels_scale():
    tap = torch.randn(3, 5, 6, 7) * torch.tensor([0.01, 1.0, 30.0, 0.0, 5.0]).view(1, 5, 1, 1)
    stored = narrowed({"level.p3": tap}, "int8")
    assert {name: array.dtype.name for name, array in stored.items()} == {
        "level.p3": "int8", "level.p3.scales": "float32",
    }  # fmt: skip
    found = widened("level.p3", stored.__getitem__, CPU)
    step = tap.abs().amax(dim=(2, 3), keepdim=True) / 127
    assert bool(((found - tap).abs() <= step / 2 + 1e-6).all())


def test_an_int8_cache_takes_half_the_space_and_trains_alike(
    make_tiny_config, tiny_data, tiny_cache, tmp_path, run_job
):
    [plain], with_16 = metrics_of(config_at(make_tiny_config, "disk"), tiny_data, tiny_cache, tmp_path, run_job, 1)
    config = config_at(make_tiny_config, "disk", precision="int8")
    [rounded], with_8 = metrics_of(config, tiny_data, tiny_cache, tmp_path, run_job, 1)
    sizes = [
        sum(
            np.load(path, mmap_mode="r").nbytes for path in assets.teachers.training_cache("proxy").folder.glob("*.npy")
        )
        for assets in (with_16, with_8)
    ]
    assert sizes[1] < 0.75 * sizes[0]  # the scales weigh more on maps of few cells
    assert rounded == pytest.approx(plain, rel=0.05)
    assert rounded != plain


# ------------------------------------------------------------------------------------------------ places


def test_the_cheapest_place_follows_reuse_bytes_and_room():
    fast_disk = Speeds(forward_s=1e-2, pass_s=2e-2, write_s=1e-9, read_s=1e-9, copy_s=1e-10)
    shown_once = Uses(num_read=1000, num_kept=1000, num_seeds=1, num_stored=1000, view_bytes=1e6, stored_bytes=10**9)
    often = Uses(num_read=50_000, num_kept=1000, num_seeds=1, num_stored=1000, view_bytes=1e6, stored_bytes=10**9)
    room = {"workers": 2, "memory_bytes": 10**10, "disk_bytes": 10**10}
    assert cheapest(costs_of(shown_once, fast_disk, **room)) == "live"
    assert cheapest(costs_of(often, fast_disk, **room)) == "memory"
    assert cheapest(costs_of(often, fast_disk, **room | {"memory_bytes": 10**8})) == "disk"
    assert cheapest(costs_of(often, fast_disk, **room | {"memory_bytes": 10**8, "disk_bytes": 10**8})) == "live"
    slow_disk = Speeds(forward_s=1e-3, pass_s=6e-3, write_s=1e-9, read_s=5e-9, copy_s=1e-10)
    assert cheapest(costs_of(often, slow_disk, **room | {"memory_bytes": 0})) == "live", "SCALE row 7"
    # 1000 * (2e-2 + 1e6 * 1e-9) + 50,000 * 1e6 * 1e-9
    assert costs_of(often, fast_disk, **room)["disk"] == pytest.approx(21 + 50)


def test_small_outputs_go_to_the_disk_unmeasured_and_large_ones_are_measured(
    make_tiny_config, tiny_data, tiny_cache, monkeypatch
):
    config = make_tiny_config(proxy=PROXY)
    found = place_costs(config, tiny_data, tiny_cache, CPU)
    assert {recipe: cheapest(costs) for recipe, costs in found.items()} == {"full": "disk", "proxy": "disk"}
    monkeypatch.setattr(places, "SMALL_BYTES", 0)
    costs = place_costs(config, tiny_data, tiny_cache, CPU, searches=False)["full"]
    assert all(0 < seconds < 600 for seconds in costs.values())
    monkeypatch.setattr(places, "free_bytes", lambda folder: 0)
    assert place_costs(config, tiny_data, tiny_cache, CPU, searches=False)["full"]["disk"] == math.inf


def test_a_place_that_the_file_names_is_not_asked_for(make_tiny_config, tiny_data, tiny_cache):
    config = make_tiny_config(proxy={**PROXY, "teacher_outputs": "live"}, full={"num_views": "endless"})
    assert place_costs(config, tiny_data, tiny_cache, CPU) == {}


def test_speeds_of_a_disk_are_seconds_of_a_byte(tmp_path):
    written_s, read_s = disk_speeds(tmp_path, is_cold=True)
    assert 1e-12 < read_s < 1e-6
    assert 1e-12 < written_s < 1e-5
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------------ room


def stored(root: Path, name: str, size: int, days: float) -> Path:
    (root / name).mkdir(parents=True)
    (root / name / "level.p3.npy").write_bytes(b"x" * size)
    (root / name / "meta.json").write_text("{}")
    then = time.time() - 86400 * days
    os.utime(root / name / "meta.json", (then, then))
    return root / name


def test_caches_that_were_not_used_for_longest_go_first_and_never_those_in_use(tmp_path):
    old, older, new = stored(tmp_path, "a", 400, 2), stored(tmp_path, "b", 400, 3), stored(tmp_path, "c", 400, 1)
    lock = hold(older)
    stamp = time.time() - 86400 * 3
    os.utime(older / "meta.json", (stamp, stamp))
    make_room(tmp_path, 300, 1300)
    assert (older.is_dir(), old.is_dir(), new.is_dir()) == (True, False, True)
    with pytest.raises(DataError, match=r"that running trainings have open, and cache.max_bytes allows"):
        make_room(tmp_path, 1000, 1300)
    assert older.is_dir()
    lock.close()
    make_room(tmp_path, 1200, 1300)
    assert stored_outputs(tmp_path) == []


def test_the_command_lists_and_clears(tmp_path):
    stored(tmp_path / TAPS_FOLDER, "abc", 4000, 5)
    run = CliRunner()
    listed = run.invoke(app, ["cache", "list", "--cache-dir", str(tmp_path)])
    assert listed.exit_code == 0
    assert "abc" in listed.output
    assert "4 kB" in listed.output
    assert run.invoke(app, ["cache", "clear", "--cache-dir", str(tmp_path), "--unused-days", "9"]).exit_code == 0
    assert len(stored_outputs(tmp_path / TAPS_FOLDER)) == 1
    cleared = run.invoke(app, ["cache", "clear", "--cache-dir", str(tmp_path)])
    assert "removed 4 kB" in cleared.output
    assert stored_outputs(tmp_path / TAPS_FOLDER) == []


def test_a_budget_is_a_number_or_a_text():
    assert CacheConfig(max_bytes="25 GB").max_bytes == 25 * 10**9
    assert CacheConfig(max_bytes=10**7).max_bytes == 10**7
    with pytest.raises(ValidationError, match="Give a number of bytes, or a text such as 25 GB"):
        CacheConfig(max_bytes="much")
    assert (
        "cache"
        not in RunConfig.model_validate(
            {"data": {"format": "shapes"}, "teacher": {"train": {}}, "student": {}}
        ).model_dump()
    )


# ------------------------------------------------------------------------------------------------ predictions alone


def test_a_run_that_reads_predictions_alone_stores_no_pyramid(
    make_tiny_config, tiny_data, tiny_cache, tmp_path, run_job
):
    space = {"terms": {"min": 1, "max": 1}, "sources": ["class_logits"], "distances": ["l2"]}
    space["transforms"] = {"scale": ["none"]}
    config = make_tiny_config(
        proxy={**PROXY, "reward": ("ap",)}, search={"enqueue": []}, full={"baselines": ["none"]}, space=space
    )
    spec = config.space.sample(np.random.default_rng(0))
    evaluator = TrainingEvaluatorFactory(config, tiny_cache, tmp_path / "run", tiny_data)(WorkerResources())
    _, outcome = run_job(evaluator, Job("t", spec, "proxy"))
    assert outcome.status == "finished", outcome.message
    assert outcome.metrics["distill_loss"] > 0
    assets = evaluator.assets
    cache = assets.teachers.training_cache("proxy", part=assets.shown_part("proxy", 0))
    assert [path.name for path in cache.folder.glob("*.npy")] == ["class_logits.npy"]
