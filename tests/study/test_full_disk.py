"""Full and read-only disks are told as such, with the folder and what to do."""

from __future__ import annotations

import errno
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from autokd.errors import StorageError
from autokd.jobs import Outcome
from autokd.study import full_disk
from autokd.study.full_disk import disks_explained, refuse_full_disk, require_writable


def test_an_error_of_a_full_disk_names_the_folder_and_how_to_go_on(tmp_path: Path) -> None:
    cache, run = tmp_path / "cache", tmp_path / "run"
    error = OSError(errno.ENOSPC, "No space left on device", str(cache / "a" / "b.pt"))
    with pytest.raises(StorageError, match=r"cache: the disk is full .*--resume"), disks_explained(cache, run):
        raise error
    # torch names no cause.
    torn = RuntimeError("[enforce fail at inline_container.cc:664] . PytorchStreamWriter failed writing file data/0")
    with pytest.raises(StorageError, match=r"run: the disk is full"), disks_explained(cache, run):
        raise torn


def test_any_error_beside_a_full_disk_is_taken_for_its_consequence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(full_disk, "_free_bytes", lambda folder: 0 if folder.name == "run" else 1e9)
    with (
        pytest.raises(StorageError, match=r"run: the disk is full"),
        disks_explained(tmp_path / "cache", tmp_path / "run"),
    ):
        raise KeyError("consequence")


def test_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(KeyError), disks_explained(tmp_path):
        raise KeyError("bug")
    with pytest.raises(StorageError, match="cannot be written"), disks_explained(tmp_path):
        raise OSError(errno.EROFS, "Read-only file system", str(tmp_path / "x"))


def test_a_cache_that_cannot_be_written_is_refused_with_its_option(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(StorageError, match=r"taken: the folder of the cache cannot be written.*--cache-dir"):
        require_writable(tmp_path / "taken")
    require_writable(tmp_path / "new")
    assert not (tmp_path / "new").exists(), "nothing is left there"


def test_a_training_that_met_a_full_disk_ends_the_run_and_counts_as_not_done() -> None:
    traceback = "Traceback ...\nOSError: [Errno 28] No space left on device: 'jobs/a/weights.pt'"
    with pytest.raises(StorageError, match=r"full-none-s0 on host:7: the disk is full.*--resume"):
        refuse_full_disk(Outcome("full-none-s0", "failed", cause="error", message=traceback, worker="host:7"))
    refuse_full_disk(Outcome("a", "failed", cause="error", message="KeyError: 'surprise'"))
    refuse_full_disk(Outcome("a", "finished"))


STUDY = """
import resource, sys
from autokd.errors import StorageError
from autokd.storage import open_study
study = open_study(sys.argv[1], "s")
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    for number in range(200):
        study.set_user_attr(str(number), "x" * 2000)
except StorageError as error:
    print("refused:", error)
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="no limits of files here")
def test_a_database_without_room_ends_with_a_word(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", STUDY, str(tmp_path / "study.db")], capture_output=True, text=True, check=False
    )
    assert ended.stdout.startswith("refused:"), ended.stderr
    assert "--resume" in ended.stdout
