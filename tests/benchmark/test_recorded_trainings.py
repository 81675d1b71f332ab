"""What experiments that train share: jobs are trained once, whoever asks; tables find their place in a README."""

from __future__ import annotations

import pytest
from recorded.readme import write_table
from recorded.scratch import Scratch
from recorded.work import record

from autokd.benchmark import current_commit
from autokd.config import complete_recipes, load_config
from autokd.outcomes import Job
from autokd.space import enumerate_specs
from tests.support.benchmark_samples import SMALL

CONFIG = complete_recipes(load_config(SMALL))


@pytest.mark.slow
def test_jobs_are_trained_once_and_kept_with_their_commit(tmp_path, capsys):
    spec = next(iter(enumerate_specs(CONFIG.space)))
    jobs = [Job("full-none-s0", None, "full", 0), Job(f"full-{spec.digest}-s0", spec, "full", 0)]
    record(CONFIG, jobs[:1], tmp_path / "scratch", tmp_path / "cache")
    record(CONFIG, jobs, tmp_path / "scratch", tmp_path / "cache")
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in said] == [job.id for job in jobs]
    scratch = Scratch(tmp_path / "scratch", CONFIG, ["full"])
    outcomes, commits, machines = scratch.read()
    assert set(outcomes) == {job.id for job in jobs}
    assert all(o.status == "finished" and "val_ap" in o.metrics and not o.artifacts for o in outcomes.values())
    assert commits == set(scratch.commits().values()) == {current_commit()}
    assert len(machines) == 1


def test_no_training_is_begun_when_time_is_over(tmp_path):
    record(CONFIG, [Job("full-none-s0", None, "full", 0)], tmp_path / "scratch", tmp_path / "cache", minutes=-1.0)
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
        with pytest.raises(SystemExit, match=f"no '<!-- {name} -->' with"):
            write_table(readme, name, [])
    assert readme.read_text() == "<!-- a -->\n"
