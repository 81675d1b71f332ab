"""What experiments that train share: jobs are trained once, whoever asks; tables find their place in a README."""

from __future__ import annotations

import pytest

from autokd.benchmark import current_commit
from autokd.benchmark.markdown import gain_text, interval_text, markdown_table, mean_text, paired_gain, write_table
from autokd.benchmark.recording.curves import CurveTraining, measured_epochs
from autokd.benchmark.recording.jobs import Recorder, record_jobs
from autokd.benchmark.recording.scratch import Scratch
from autokd.config import complete_recipes, load_config
from autokd.errors import BenchmarkError
from autokd.jobs import make_job
from autokd.space import enumerate_specs
from autokd.training.evaluator import TRAININGS
from tests.support.benchmark_samples import SMALL

CONFIG = complete_recipes(complete_recipes(load_config(SMALL)))


@pytest.mark.slow
def test_jobs_are_trained_once_and_kept_with_their_commit(tmp_path, capsys):
    spec = next(iter(enumerate_specs(CONFIG.space)))
    jobs = [make_job(None, "full", 0), make_job(spec, "full", 0)]
    record_jobs(CONFIG, jobs[:1], tmp_path / "scratch", tmp_path / "cache")
    record_jobs(CONFIG, jobs, tmp_path / "scratch", tmp_path / "cache")
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in said] == [job.id for job in jobs]
    scratch = Scratch(tmp_path / "scratch", CONFIG, ["full"])
    outcomes, commits, machines = scratch.read()
    assert set(outcomes) == {job.id for job in jobs}
    assert all(o.status == "finished" and "val_ap" in o.metrics and not o.artifacts for o in outcomes.values())
    assert commits == set(scratch.commits().values()) == {current_commit()}
    assert len(machines) == 1

    # A training that is measured on its way ends as one that is not.
    recorder = Recorder(CONFIG, tmp_path / "curves", tmp_path / "cache", trainings=TRAININGS | {"full": CurveTraining})
    assert [recorder.record(job) for job in (jobs[1], jobs[1])] == [True, False]
    curve = recorder.scratch.read()[0][jobs[1].id]
    plain = outcomes[jobs[1].id]
    assert {name: curve.metrics[name] for name in plain.metrics if "seconds" not in name} == {
        name: value for name, value in plain.metrics.items() if "seconds" not in name
    }
    assert [report.epoch for report in curve.reports if "ap" in report.metrics] == [*measured_epochs(4), 4]
    assert curve.metrics["ap"] == curve.metrics["val_ap"]
    assert {"ap", "ap_worst_class", "val_loss", "cka"} <= curve.reports[0].metrics.keys()


def test_no_training_is_begun_when_time_is_over(tmp_path):
    record_jobs(CONFIG, [make_job(None, "full", 0)], tmp_path / "scratch", tmp_path / "cache", minutes=-1.0)
    assert Scratch(tmp_path / "scratch", CONFIG).finished_ids() == set()


def test_a_table_takes_the_place_of_the_one_before(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("Above\n\n<!-- a -->\nold\n<!-- end -->\n\n<!-- b -->\nother\n<!-- end -->\nbelow\n")
    for _ in range(2):
        write_table(readme, "a", ["| new |", "|---|"])
    expected = "Above\n\n<!-- a -->\n| new |\n|---|\n<!-- end -->\n\n<!-- b -->\nother\n<!-- end -->\nbelow\n"
    assert readme.read_text() == expected


def test_a_table_without_a_place_is_refused(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("<!-- a -->\n")
    for name in ("a", "b"):
        with pytest.raises(BenchmarkError, match=f"no '<!-- {name} -->' with"):
            write_table(readme, name, [])
    assert readme.read_text() == "<!-- a -->\n"


def test_cells_of_a_table_hold_means_gains_and_intervals():
    ours, theirs = {0: 0.391, 1: 0.402}, {0: 0.350, 1: 0.362, 2: 0.341}
    gain = paired_gain(ours, theirs)
    assert gain_text(gain, 3) == "+0.041"
    assert interval_text(gain, 4) == "+0.0405 [+0.0341, +0.0469]"
    assert (mean_text(ours.values(), 4), mean_text([0.5], 3), mean_text([], 3)) == ("0.3965 ± 0.0078", "0.500", "")
    assert paired_gain({7: 0.4}, theirs) is None
    assert (gain_text(None, 3), interval_text(paired_gain({0: 0.4}, theirs), 4)) == ("", "")
    assert markdown_table(("a", "b"), [("x", ""), (1, 2)]) == ["| a | b |", "|---|---|", "| x | |", "| 1 | 2 |"]
