"""Temporary names: what killed processes left is removed, and what others write is left alone."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from autokd.files import atomic_file, atomic_folder
from autokd.temporary import (
    is_running,
    is_temporary,
    own_folder,
    process_mark,
    remove_abandoned,
    remove_own_folders,
    remove_temporary,
)


def mark_of_a_dead_process() -> str:
    ended = subprocess.Popen([sys.executable, "-S", "-c", ""])
    ended.wait()
    return f"{process_mark().partition('-')[0]}-{ended.pid}"


def test_what_a_dead_process_left_is_removed_at_once_and_what_a_living_one_writes_stays(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    left = [tmp_path / f".a.pt.{mark_of_a_dead_process()}-0123abcd.part", tmp_path / "below" / ".b.0123abcd.part"]
    for path in left:
        path.write_text("half")
    os.utime(left[1], (time.time() - 90_000,) * 2)
    (tmp_path / ".unknown.0123abcd.part").write_text("of another machine, an hour ago")
    (tmp_path / "notes.part").write_text("a user's own")
    with atomic_file(tmp_path / "c.pt") as mine, atomic_folder(tmp_path / "d") as folder:
        mine.write_text("half")
        assert is_temporary(mine)
        remove_abandoned(tmp_path)
        assert mine.exists()
        assert folder.exists()
    assert not any(path.exists() for path in left)
    assert (tmp_path / ".unknown.0123abcd.part").exists()
    remove_temporary(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"below", "c.pt", "d", "notes.part"}


def test_a_folder_of_ones_own_goes_with_the_block_or_with_the_process(tmp_path: Path) -> None:
    dead = tmp_path / f"autokd-{mark_of_a_dead_process()}-abcdefgh"
    dead.mkdir()
    with own_folder(tmp_path) as folder:
        assert not dead.exists()
        assert folder.stat().st_mode & 0o077 == 0
        with own_folder(tmp_path) as other:
            assert folder.exists()
        assert not other.exists()
        remove_own_folders()
        assert not folder.exists()


def test_a_process_that_waits_to_be_buried_does_not_run() -> None:
    zombie = subprocess.Popen([sys.executable, "-S", "-c", ""])
    until = time.monotonic() + 20
    while is_running(zombie.pid) and time.monotonic() < until:
        time.sleep(0.01)
    assert not is_running(zombie.pid)
    zombie.wait()
    assert is_running(os.getpid())
