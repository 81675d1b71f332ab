"""Errors of a disk end a command with one sentence and exit code 2."""

from __future__ import annotations

import errno
import importlib
import sys
from pathlib import Path

import pytest

from autokd.cli.disk_errors import disk_words
from autokd.errors import StorageError
from autokd.study.full_disk import require_writable


def test_a_full_disk_is_named_under_whatever_class():
    assert "/a/b: no space is left" in disk_words(OSError(errno.ENOSPC, "No space left on device", "/a/b"))
    wrapped = RuntimeError("storage failed")
    wrapped.__cause__ = ValueError("(sqlite3.OperationalError) database or disk is full")
    assert "no space is left" in disk_words(wrapped)
    assert disk_words(ValueError("another matter")) is None


def test_a_folder_that_cannot_be_written_is_named():
    assert disk_words(PermissionError(errno.EACCES, "Permission denied", "/a")).startswith("/a: cannot be written")


def test_the_command_ends_with_the_sentence(monkeypatch, capsys):
    def full(**settings):
        raise OSError(errno.ENOSPC, "No space left on device", "/cache/x")

    command_line = importlib.import_module("autokd.cli.app")  # the package has the Typer of that name
    monkeypatch.setattr(command_line, "app", full)
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("autokd: /cache/x: no space is left on the disk.")


def test_a_cache_that_is_a_file_or_read_only_is_refused_first(tmp_path: Path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(StorageError, match=r"taken: the folder of the cache cannot be written.*--cache-dir"):
        require_writable(tmp_path / "taken")
    if sys.platform.startswith("linux"):
        with pytest.raises(StorageError, match="/proc/here: the folder of the cache cannot be written"):
            require_writable(Path("/proc/here"))
    require_writable(tmp_path / "new" / "cache")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"], "nothing is left behind"
