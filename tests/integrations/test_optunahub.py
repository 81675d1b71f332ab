"""The packages for OptunaHub load by its own loader, and equal their sources."""

from __future__ import annotations

import filecmp
import gzip
import json
import runpy
from pathlib import Path

import optuna
import pytest

pytest.importorskip("optunahub", reason="optunahub is not installed")

ROOT = Path(__file__).parents[2]
HUB = ROOT / "integrations" / "optunahub"
SAMPLER = HUB / "package" / "samplers" / "mcts_trajectories"
BENCHMARK = HUB / "package" / "benchmarks" / "autokd_distillers"


@pytest.mark.parametrize("package", [SAMPLER, BENCHMARK], ids=lambda path: path.name)
def test_a_package_has_what_the_registry_asks(package: Path):
    head = (package / "README.md").read_text().split("---")[1]
    for key in ("author", "title", "description", "tags", "optuna_versions", "license"):
        assert f"\n{key}: " in head
    assert "license: MIT License" in head
    assert (package / "LICENSE").read_text().startswith("MIT License")
    assert (package / "example.py").is_file()


@pytest.mark.parametrize("package", [SAMPLER, BENCHMARK], ids=lambda path: path.name)
def test_the_tests_of_a_package_pass(package: Path):
    (file,) = (package / "tests").glob("test_*.py")
    tests = [test for name, test in runpy.run_path(str(file)).items() if name.startswith("test_")]
    assert tests
    for test in tests:
        test()


def test_the_sampler_is_the_code_of_autokd(tmp_path: Path):
    published = runpy.run_path(str(HUB / "publish.py"))["publish"](tmp_path)
    assert sorted(path.name for path in published) == ["autokd_distillers", "mcts_trajectories"]
    copy = tmp_path / "package" / "samplers" / "mcts_trajectories" / "mcts"
    source = ROOT / "autokd" / "search" / "mcts"
    names = sorted(path.name for path in source.glob("*.py"))
    assert sorted(path.name for path in copy.glob("*.py")) == names
    assert filecmp.cmpfiles(source, copy, names, shallow=False)[0] == names
    assert not copy.is_symlink()


def test_the_sampler_suggests_what_autokds_own_does():
    import optunahub

    from autokd.search import MCTSSampler

    module = optunahub.load_local_module("samplers/mcts_trajectories", registry_root=str(HUB / "package"))
    objective = runpy.run_path(str(SAMPLER / "tests" / "test_sampler.py"))["objective"]
    found = []
    for sampler in (module.MCTSSampler(seed=4), MCTSSampler(seed=4)):
        study = optuna.create_study(direction="maximize", sampler=sampler)
        study.optimize(objective, n_trials=12)
        found.append([trial.params for trial in study.trials])
    assert found[0] == found[1]


def test_the_benchmarks_table_is_that_of_the_recorded_one():
    stored = json.loads(gzip.decompress((BENCHMARK / "distillers.json.gz").read_bytes()))
    assert stored == json.loads(json.dumps(runpy.run_path(str(HUB / "make_benchmark.py"))["content"]()))
    assert len(stored["rows"]) == 432
