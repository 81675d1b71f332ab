"""What a release consists of fits together: one version, the wheel's files, a quickstart outside the clone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import autokd
from autokd.config import load_config
from autokd.documents import load_document

ROOT = Path(__file__).parents[2]


def test_the_version_is_one():
    citation = load_document(ROOT / "CITATION.cff").data
    newest = re.search(r"^## (\d\S*)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest is not None
    assert str(citation["version"]) == newest[1] == autokd.__version__
    assert 'dynamic = ["version"]' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sorted((ROOT / ".github" / "workflows").glob("*.yml")), ids=lambda path: path.name)
def test_a_workflow_runs_targets_that_the_makefile_has(path):
    text = path.read_text(encoding="utf-8")
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    load_document(path)
    assert set(re.findall(r"make (\w+)", text)) <= targets


def test_a_packaged_file_is_found_by_its_name_and_a_file_goes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_config("quickstart").name == "quickstart"
    assert load_config("quickstart") == load_config(ROOT / "search_spaces" / "quickstart.yaml")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # sdist first, the wheel from it
    assert done.returncode == 0, done.stderr[-2000:] + done.stdout[-2000:]
    return next(folder.glob("*.whl"))


@pytest.mark.slow
def test_the_wheel_searches_outside_the_repository(wheel, tmp_path):
    installed, empty = tmp_path / "installed", tmp_path / "empty"
    empty.mkdir()
    with zipfile.ZipFile(wheel) as archive:  # as pip does; what it needs is installed here already
        archive.extractall(installed)
    small = (installed / "autokd" / "examples" / "quickstart.yaml").read_text(encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "autokd", *arguments]
        done = subprocess.run(command, cwd=empty, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:] + done.stdout[-2000:]
        return done.stdout

    where = subprocess.run(
        [sys.executable, "-c", "import autokd; print(autokd.__file__)"],
        cwd=empty, env=environment, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert Path(where.strip()).is_relative_to(installed)
    assert "sums of 1 to 4 parts" in run("space", "quickstart")
    tiny = re.sub(r"num_(train|val|test): \d+", r"num_\1: 8", small)
    tiny = re.sub(r"epochs: \d+", "epochs: 1", tiny)
    (empty / "tiny.yaml").write_text(tiny, encoding="utf-8")
    run("search", "tiny.yaml", "--trials", "2", "--workers", "0", "--forecast", "0")
    left = {path.name for path in (empty / "runs" / "quickstart").iterdir()}
    assert {"report.html", "student.pt", "best_distiller.yaml"} <= left
