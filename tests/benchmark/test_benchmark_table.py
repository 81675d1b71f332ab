"""The recorded table: round trip, lookups, refusals."""

from __future__ import annotations

import gzip
import json
import math
import subprocess
import sys
import time

import pytest

from autokd.benchmark import (
    BenchmarkEvaluatorFactory,
    BenchmarkRow,
    load_benchmark,
    make_header,
    recipe_digest,
    save_benchmark,
)
from autokd.config import complete_recipes, load_config
from autokd.errors import BenchmarkError
from autokd.jobs import TRAINING_VERSION, Job, Outcome, WorkerResources
from autokd.runtime import SimulatedRuntime
from autokd.space import enumerate_specs
from autokd.spec import DistillerSpec
from tests.support.benchmark_samples import LARGE, SMALL, outcomes_of, synthetic


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("table") / "table.jsonl.gz"
    save_benchmark(path, synthetic())
    return path


@pytest.fixture(scope="module")
def specs():
    return list(enumerate_specs(load_config(SMALL).space))


def rewritten(path, tmp_path, change):
    """A copy of the table whose parsed lines ``change`` has altered."""
    lines = [json.loads(line) for line in gzip.decompress(path.read_bytes()).decode().splitlines()]
    change(lines)
    copy = tmp_path / "changed.jsonl.gz"
    copy.write_bytes(gzip.compress("".join(json.dumps(line) + "\n" for line in lines).encode()))
    return copy


def test_a_table_comes_back_as_it_was_written(path, specs):
    table = load_benchmark(path)
    assert len(table) == len(specs) == 24
    for spec in [None, *specs]:
        row = table.lookup(spec)
        for recipe, num_epochs in (("full", 4), ("proxy", 2)):
            for seed in (0, 1):
                expected, found = outcomes_of(spec, recipe, seed, num_epochs), row.outcome(recipe, seed)
                assert (found.status, found.worker) == ("finished", "synthetic")
                assert dict(found.metrics) == pytest.approx(dict(expected.metrics), rel=1e-5)
                assert found.seconds == pytest.approx(expected.seconds, rel=1e-5)
                assert [r.epoch for r in found.reports] == [r.epoch for r in expected.reports]
                for ours, theirs in zip(found.reports, expected.reports, strict=True):
                    assert dict(ours.metrics) == pytest.approx(dict(theirs.metrics), rel=1e-5)
                    assert ours.seconds == pytest.approx(theirs.seconds, rel=1e-5)


def test_equal_tables_are_equal_bytes(path, tmp_path):
    again = tmp_path / "again.jsonl.gz"
    save_benchmark(again, load_benchmark(path))
    assert again.read_bytes() == path.read_bytes()


def test_four_hundred_specs_with_three_seeds_stay_far_below_five_megabytes(tmp_path):
    table = synthetic(LARGE, seeds=(0, 1, 2))
    assert len(table) > 400
    save_benchmark(tmp_path / "large.jsonl.gz", table)
    assert (tmp_path / "large.jsonl.gz").stat().st_size < 1_000_000


def test_a_spec_is_found_however_it_is_written(path):
    text = """
    terms:
    - {source: feature_map, transforms: [none], distance: l2, weight: {relative: 10}}
    - {source: feature_map, distance: l2, weight: {relative: 30.0}}
    """
    row = load_benchmark(path).lookup(DistillerSpec.from_yaml(text))
    [term] = row.spec.terms
    assert (term.source.name, term.transforms, term.distance.name, term.weight.value) == ("feature_map", (), "l2", 40.0)


def test_a_lookup_takes_microseconds(path, specs):
    table = load_benchmark(path)
    began = time.perf_counter()
    for _ in range(100):
        for spec in specs:
            table.lookup(spec)
    assert (time.perf_counter() - began) / (100 * len(specs)) < 100e-6


def test_a_spec_outside_the_table_is_an_error_and_not_a_neighbor(path, specs):
    table = load_benchmark(path)
    neighbor = specs[0].with_gradient_ratio(20.0)
    assert neighbor not in table
    with pytest.raises(BenchmarkError, match=rf"{neighbor.digest}.* is not in the table, which holds 24 of .* 24"):
        table.lookup(neighbor)


def test_a_seed_that_was_not_recorded_is_an_error(path, specs):
    with pytest.raises(BenchmarkError, match="no full training with seed 7 is recorded; seeds there: 0, 1"):
        load_benchmark(path).lookup(specs[0]).outcome("full", 7)


def test_a_partial_table_says_what_it_lacks():
    table = synthetic(leave_out=5)
    with pytest.raises(BenchmarkError, match="of 24 specs 5 have no proxy training with seed 0"):
        table.require("proxy", 0)
    synthetic().require("proxy", 0)


def test_means_are_over_the_seeds_that_finished(path, specs):
    row = load_benchmark(path).lookup(specs[3])
    expected = [outcomes_of(specs[3], "full", seed, 4).metrics["val_ap"] for seed in (0, 1)]
    assert row.mean("val_ap") == pytest.approx(sum(expected) / 2, rel=1e-5)
    with pytest.raises(BenchmarkError, match="no finished proxy training has 'val_ap'"):
        row.mean("val_ap", "proxy")


def test_gains_are_of_equal_seeds(specs):
    def row(**full: float) -> BenchmarkRow:
        outcomes = {int(k[1:]): Outcome(k, "finished", {"val_ap": v}) for k, v in full.items()}
        return BenchmarkRow(None, full=outcomes)

    ours, base = row(s0=0.5, s1=0.3, s2=0.8), row(s0=0.4, s1=0.1, s4=0.0)
    assert ours.gain(base, "val_ap") == pytest.approx((0.1 + 0.2) / 2)
    assert ours.gain(base, "val_ap", but=0) == pytest.approx(0.2)
    assert math.isnan(row(s2=0.8).gain(base, "val_ap"))


# ------------------------------------------------------------------------------------------- refusals


def test_another_schema_is_refused(path, tmp_path):
    changed = rewritten(path, tmp_path, lambda lines: lines[0].update(schema=99))
    with pytest.raises(BenchmarkError, match="schema 99; this version of AutoKD reads schema 2"):
        load_benchmark(changed)


def test_another_version_of_the_training_is_refused_unless_asked_for(path, tmp_path):
    changed = rewritten(path, tmp_path, lambda lines: lines[0].update(training_version=TRAINING_VERSION + 1))
    with pytest.raises(BenchmarkError, match=rf"version {TRAINING_VERSION + 1}.* trains version {TRAINING_VERSION}"):
        load_benchmark(changed)
    assert len(load_benchmark(changed, training_version=None)) == 24


def test_another_commit_is_refused_only_where_one_is_asked_for(path):
    assert load_benchmark(path).header.commits == ("0123456789ab",)
    assert len(load_benchmark(path, commit="0123456")) == 24
    with pytest.raises(BenchmarkError, match="recorded at commit 0123456789ab, asked for is fedcba9"):
        load_benchmark(path, commit="fedcba9")


@pytest.mark.parametrize(
    ("old", "new", "difference"),
    [
        (
            "gradient_ratio: [10, 40]",
            "gradient_ratio: [10, 100]",
            "gradient_ratio: one of 10, 40 in the table, one of 10, 100 here",
        ),
        ("distances: [l1, l2]", "distances: [l1, l2, cosine]", "distance: l1, l2 in the table, l1, l2, cosine here"),
        ("terms: 1", "terms: {min: 1, max: 2}", "terms: 1 to 1 in the table, 1 to 2 here"),
        ("{normalize:", "{other:", "slots: source, normalize, distance in the table, source, other, distance here"),
    ],
)
def test_another_space_is_refused_with_the_difference_named(path, old, new, difference):
    assert old in SMALL
    assert len(load_benchmark(path, space=load_config(SMALL).space)) == 24
    with pytest.raises(BenchmarkError) as caught:
        load_benchmark(path, space=load_config(SMALL.replace(old, new)).space)
    assert difference in str(caught.value)


def test_another_recipe_is_refused_with_the_setting_named(path):
    assert len(load_benchmark(path, config=complete_recipes(load_config(SMALL)))) == 24
    other = complete_recipes(load_config(SMALL.replace("full: {epochs: 4}", "full: {epochs: 5}")))
    with pytest.raises(BenchmarkError, match=r"full\.epochs: 4 in the table, 5 here"):
        load_benchmark(path, config=other)


def test_a_spec_whose_digest_has_changed_is_refused(path, tmp_path):
    changed = rewritten(path, tmp_path, lambda lines: lines[5].update(digest="0" * 16))
    with pytest.raises(BenchmarkError, match=r":6: the spec's digest is \w{16} here, 0{16} in the table"):
        load_benchmark(changed)


def test_an_edited_header_and_a_repeated_row_are_refused(path, tmp_path):
    changed = rewritten(path, tmp_path, lambda lines: lines[0].update(space=lines[0]["space"].replace("40", "41")))
    with pytest.raises(BenchmarkError, match="does not fit its digest"):
        load_benchmark(changed)
    changed = rewritten(path, tmp_path, lambda lines: lines.append(lines[4]))
    with pytest.raises(BenchmarkError, match="a spec has two rows"):
        load_benchmark(changed)


def test_files_that_are_no_tables_are_refused(path, tmp_path):
    with pytest.raises(BenchmarkError, match="no such file"):
        load_benchmark(tmp_path / "absent.gz")
    (tmp_path / "text.gz").write_text("spec,ap\n")
    with pytest.raises(BenchmarkError, match="not a benchmark table"):
        load_benchmark(tmp_path / "text.gz")
    (tmp_path / "cut.gz").write_bytes(path.read_bytes()[:-400])
    with pytest.raises(BenchmarkError, match="cut short"):
        load_benchmark(tmp_path / "cut.gz")


# --------------------------------------------------------------------------------------------- replay


class OneByOne:
    def __init__(self, jobs):
        self.jobs, self.reports, self.outcomes, self.times = list(jobs), [], [], []

    def next_job(self):
        return self.jobs.pop(0) if self.jobs else None

    def on_report(self, report):
        self.reports.append(report)
        return True

    def on_outcome(self, outcome):
        self.outcomes.append(outcome)


def test_jobs_are_answered_with_recorded_metrics_and_seconds(path, specs):
    table = load_benchmark(path)
    jobs = [Job("first", specs[2], "proxy", 1), Job("second", specs[2], "full", 0), Job("none", None, "proxy", 0)]
    driver, runtime = OneByOne(jobs), SimulatedRuntime(1)
    runtime.run(driver, BenchmarkEvaluatorFactory(table))
    assert [o.job_id for o in driver.outcomes] == ["first", "second", "none"]
    recorded = [table.lookup(job.spec).outcome(job.recipe, job.seed) for job in jobs]
    assert [o.metrics for o in driver.outcomes] == [o.metrics for o in recorded]
    assert runtime.now_s == pytest.approx(sum(o.seconds for o in recorded))
    assert [r.epoch for r in driver.reports if r.job_id == "second"] == [1, 2, 3, 4]


def test_a_job_that_is_not_in_the_table_fails_saying_so(path, specs):
    driver = OneByOne([Job("absent", specs[0].with_gradient_ratio(20.0), "proxy", 0)])
    SimulatedRuntime(1).run(driver, BenchmarkEvaluatorFactory(load_benchmark(path)))
    [outcome] = driver.outcomes
    assert (outcome.status, outcome.cause) == ("failed", "error")
    assert "is not in the table" in outcome.message


def test_the_factory_serves_any_worker_with_itself(path):
    factory = BenchmarkEvaluatorFactory(load_benchmark(path))
    assert factory(WorkerResources()) is factory


def test_importing_the_benchmark_loads_no_torch():
    code = "import sys, autokd.benchmark; print({'torch', 'ray'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"


def test_a_recipe_is_the_same_in_a_copy_of_its_folder_and_its_header_holds_no_place(tmp_path, monkeypatch):
    """A checkpoint, or a config of MMDetection, has an absolute path once it is resolved: another one in each clone."""
    found = []
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "teacher.pth").write_bytes(b"")
        monkeypatch.chdir(tmp_path / name)
        text = f"{SMALL}\n".replace("teacher: {", f"teacher: {{checkpoint: {tmp_path / name / 'teacher.pth'}, ")
        config = complete_recipes(load_config(text))
        found.append((recipe_digest(config), make_header(config, commits=["a"], machines=["b"])))
    assert found[0][0] == found[1][0]
    assert found[0][1].config == found[1][1].config
    assert str(tmp_path) not in json.dumps(found[0][1].config)
    assert "teacher.pth" in json.dumps(found[0][1].config)
    (tmp_path / "there" / "teacher.pth").write_bytes(b"other weights")
    assert recipe_digest(config) != found[1][0], "another file of that name is another recipe"
