"""Recording a table: the order of work, claims of living and dead processes, a killed process and those after it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from autokd.benchmark import load_benchmark
from autokd.benchmark.recording.plan import Amount, planned_jobs, rows_of, shuffled_specs
from autokd.benchmark.recording.scratch import Scratch
from autokd.config import complete_recipes, load_config
from autokd.errors import BenchmarkError
from autokd.jobs import Outcome, make_job
from autokd.space import enumerate_specs
from tests.support.benchmark_samples import EXPERIMENT, SMALL, outcomes_of

CONFIG = complete_recipes(complete_recipes(load_config(SMALL)))
SPECS = shuffled_specs(CONFIG)
AMOUNT = Amount(seeded=3, best=2, seeds=(1, 2), none_seeds=5)

HOLDER = """
import sys, time
from pathlib import Path
from autokd.benchmark.recording.scratch import Scratch
from autokd.config import complete_recipes, load_config
from autokd.jobs import make_job
config = complete_recipes(load_config(sys.argv[2]))
with Scratch(Path(sys.argv[1]), config).claim(make_job(None, "proxy", 0)) as is_ours:
    print(is_ours, flush=True)
    time.sleep(600)
"""


def test_every_spec_stands_once_in_an_order_that_is_not_the_spaces():
    assert sorted(s.digest for s in SPECS) == sorted(s.digest for s in enumerate_specs(CONFIG.space))
    assert [*SPECS] != [*enumerate_specs(CONFIG.space)]
    assert shuffled_specs(CONFIG) == SPECS


def test_the_plan_holds_everything_once_and_seed_0_first():
    ids = [job.id for job in planned_jobs(SPECS, AMOUNT, {})]
    assert len(ids) == len(set(ids))
    assert ids[:4] == ["proxy-none-s0", "full-none-s0", f"proxy-{SPECS[0].digest}-s0", f"full-{SPECS[0].digest}-s0"]
    assert all(name.endswith("-s0") for name in ids[: 2 * 25])
    # (24 specs + none) with seed 0; (3 specs + none) with seeds 1 and 2; none with seeds 3 and 4; proxy and full each.
    assert len(ids) == 2 * (25 + 2 * 4 + 2)


def test_the_best_join_when_all_have_been_trained_with_seed_0():
    outcomes = {make_job(s, "full", 0).id: outcomes_of(s, "full", 0, 4) for s in SPECS}
    ranked = sorted(SPECS, key=lambda s: outcomes[make_job(s, "full", 0).id].metrics["val_ap"], reverse=True)
    added = set(planned_jobs(SPECS, AMOUNT, outcomes)) - set(planned_jobs(SPECS, AMOUNT, {}))
    expected = set(ranked[:2]) - set(SPECS[:3])
    assert {job.spec for job in added} == expected
    assert {(job.recipe, job.seed) for job in added} == {("proxy", 1), ("proxy", 2), ("full", 1), ("full", 2)}
    outcomes.popitem()
    assert planned_jobs(SPECS, AMOUNT, outcomes) == planned_jobs(SPECS, AMOUNT, {})


def test_a_claim_holds_while_its_process_lives_and_is_free_when_it_is_killed(tmp_path):
    scratch, job = Scratch(tmp_path, CONFIG), make_job(None, "proxy", 0)
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path), SMALL], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline().strip() == "True"
        assert scratch.is_claimed(job)
        with scratch.claim(job) as is_ours:
            assert not is_ours
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    assert not scratch.is_claimed(job)
    with scratch.claim(job) as is_ours:
        assert is_ours


def test_what_has_ended_is_not_claimed_again(tmp_path):
    scratch, job = Scratch(tmp_path, CONFIG), make_job(SPECS[0], "full", 0)
    assert scratch.save(Outcome(job.id, "failed", cause="non_finite", message="nan"), {"commit": "", "machine": ""})
    with scratch.claim(job) as is_ours:
        assert not is_ours


def test_a_failure_that_says_nothing_of_the_distiller_is_tried_again(tmp_path):
    scratch, job = Scratch(tmp_path, CONFIG), make_job(SPECS[0], "full", 0)
    about = {"commit": "abc", "machine": "m"}
    assert not scratch.save(Outcome(job.id, "failed", cause="out_of_memory"), about)
    with scratch.claim(job) as is_ours:
        assert is_ours
    assert scratch.read() == ({}, set(), set())
    assert scratch.save(Outcome(job.id, "finished", {"val_ap": 0.1}), about)
    assert scratch.finished_ids() == {job.id}
    assert not list((tmp_path / "failed").iterdir())
    [row] = rows_of(SPECS, scratch.read()[0])
    assert (row.spec, row.full[0].metrics, dict(row.proxy)) == (SPECS[0], {"val_ap": 0.1}, {})


def test_a_scratch_folder_of_another_recipe_is_refused(tmp_path):
    Scratch(tmp_path, CONFIG, ["full"])
    other_full = complete_recipes(load_config(SMALL.replace("full: {epochs: 4}", "full: {epochs: 5}")))
    with pytest.raises(BenchmarkError, match="begun with full_digest"):
        Scratch(tmp_path, other_full, ["full"])
    with pytest.raises(BenchmarkError, match="begun with space_digest"):
        Scratch(tmp_path, complete_recipes(load_config(SMALL.replace("[10, 40]", "[10]"))))


def test_another_proxy_recipe_leaves_the_full_trainings_as_good_as_they_were(tmp_path):
    Scratch(tmp_path, CONFIG, ["full"])
    batch = CONFIG.proxy.batch_size
    other_proxy = replace_in(CONFIG, batch_size=batch + 1)
    assert Scratch(tmp_path, other_proxy, ["full"]).begun_recipes() == ["full"]
    assert Scratch(tmp_path, CONFIG, ["proxy"]).begun_recipes() == ["proxy", "full"]
    with pytest.raises(BenchmarkError, match="begun with proxy_digest"):
        Scratch(tmp_path, other_proxy, ["proxy"])
    assert [job.recipe for job in planned_jobs(SPECS, Amount(0, 0, (), 1), {}, ["full"])] == ["full"] * (len(SPECS) + 1)


def replace_in(config, **changes):
    return config.model_copy(update={"proxy": config.proxy.model_copy(update=changes)})


# ------------------------------------------------------------------------------------- real trainings

TINY = """
name: tiny
data: {format: shapes, image_size_px: [64, 64], num_train: 8, num_val: 4, num_test: 4}
teacher: {backbone: {width: 8}, fpn_channels: 16, train: {epochs: 1, batch_size: 4}}
student: {backbone: {width: 8}, fpn_channels: 8}
space: {terms: 1, sources: [feature_map, foreground], transforms: {}, distances: [l2], gradient_ratio: [10, 40]}
proxy: {epochs: 2, batch_size: 4, warm_start: {epochs: 1}, reward: [val_loss, cka, ap]}
full: {epochs: 2, batch_size: 4}
"""


@pytest.mark.slow
def test_a_killed_recording_is_finished_by_the_next_process(tmp_path):
    (tmp_path / "tiny.yaml").write_text(TINY)
    amount = ["--seeded", "1", "--best", "0", "--seeds", "1", "--none-seeds", "2"]
    cache = ["--cache-dir", str(tmp_path / "cache")]
    recording = ["record", str(tmp_path / "tiny.yaml"), "--scratch", str(tmp_path / "scratch"), *cache, *amount]

    def command(name: str, *more: str) -> list[str]:
        return [sys.executable, "-m", "autokd", "benchmark", name, *more]

    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    results = tmp_path / "scratch" / "results"
    first = subprocess.Popen(command(*recording), env=environment)
    deadline = time.monotonic() + 120
    while not (results.exists() and len(list(results.glob("*.json"))) >= 3) and time.monotonic() < deadline:
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    first.wait()
    begun = {path.name for path in (tmp_path / "scratch" / "claims").iterdir()}
    kept = {path.name: path.read_bytes() for path in results.glob("*.json")}
    assert 3 <= len(kept) < 14
    assert len(begun) - len(kept) in (0, 1), "at most the training under way is lost"

    done = subprocess.run(command(*recording), env=environment, capture_output=True, text=True, check=True)
    assert f"{14 - len(kept)} trainings done here" in done.stdout
    assert len(list(results.glob("*.json"))) == 14, "2 x (4 specs and none with seed 0, one spec and none with seed 1)"
    assert all((results / name).read_bytes() == content for name, content in kept.items())

    status = ["status", str(tmp_path / "tiny.yaml"), "--scratch", str(tmp_path / "scratch"), *amount]
    said = subprocess.run(command(*status), env=environment, capture_output=True, text=True, check=True).stdout
    assert "full: 7 of 7 done, 0 of them failed, 0 running" in said
    assert "left: 0.0 hours of one process; 0 to try again" in said
    collecting = ["collect", str(tmp_path / "tiny.yaml"), str(tmp_path / "scratch")]
    said = subprocess.run(command(*collecting), env=environment, capture_output=True, text=True, check=True).stdout
    assert "table.jsonl.gz: 4 specs, " in said
    table = load_benchmark(tmp_path / "table.jsonl.gz", config=complete_recipes(load_config(TINY)))
    table.require("proxy", 0)
    table.require("full", 0)
    assert sum(1 in row.full for row in table) == 1
    row = next(row for row in table if 1 in row.full)
    assert {"val_ap", "test_ap", "val_loss", "cka"} <= set(row.full[0].metrics)
    assert all({"val_loss", "cka", "ap", "train_seconds"} <= set(m) for m in row.curve(0).values())
    assert sorted(row.curve(0)) == [1, 2]

    checking = ["check", str(tmp_path / "tiny.yaml"), *cache, "--rows", "1"]
    checked = subprocess.run(command(*checking), env=environment, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.slow
def test_rows_of_the_recorded_table_come_out_again_within_the_seeds_noise():
    table, cache = EXPERIMENT / "table.jsonl.gz", os.environ.get("AUTOKD_CACHE")
    if not table.exists():
        pytest.skip("no table has been recorded")
    if cache is None or not (Path(cache) / "teachers").is_dir():
        pytest.skip("set AUTOKD_CACHE to the folder with the table's teacher: to train it takes long")
    done = subprocess.run(
        [sys.executable, "-m", "autokd", "benchmark", "check", str(EXPERIMENT / "space.yaml"), "--rows", "3"],
        capture_output=True,
        text=True,
        cwd=EXPERIMENT.parents[1],
    )
    assert done.returncode == 0, done.stdout + done.stderr
