"""The commands of docs/tools.md that train nothing run, in the order of the page, in a folder as it describes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from autokd.cli import app
from tests.cli.test_runs_and_compare import make_run
from tests.starter.test_init import write_set
from tests.support.trained_samples import write_run

PAGE = Path(__file__).parents[2] / "docs" / "tools.md"


def commands(kind: str) -> list[list[str]]:
    """The lines of the page's blocks of one kind, as arguments."""
    blocks = re.findall(rf"^```{kind}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.S | re.M)
    return [shlex.split(line)[1:] for block in blocks for line in block.splitlines() if line.startswith("autokd ")]


def test_every_command_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("safetensors")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUTOKD_CACHE", str(tmp_path / "cache"))
    write_set(tmp_path / "photos")
    (tmp_path / "photos" / "val2017").rename(tmp_path / "photos" / "val")
    (tmp_path / "photos" / "train2017").rename(tmp_path / "photos" / "train")
    for split in ("train", "val"):
        folder = tmp_path / "photos" / "annotations"
        (folder / f"instances_{split}2017.json").rename(folder / f"instances_{split}.json")
    for name in ("kd", "other"):
        make_run(tmp_path / "runs" / name, [0.5, 1.0], "pkd")
    write_run(tmp_path / "runs" / "kd")
    lines = commands("sh")
    assert len(lines) >= 10
    for arguments in lines:
        done = CliRunner().invoke(app, arguments, env={"COLUMNS": "160"})
        assert done.exit_code == 0, f"{arguments}: {done.output} {done.exception!r}"
    for made in ("kd.yaml", "found/predictions.json", "exported/student.safetensors", "comparison.png"):
        assert (tmp_path / made).is_file()
