"""Files and folders whole or not at all, locks, digests of content."""

from __future__ import annotations

import os
import threading
import time

import pytest

from autokd.files import (
    atomic_file,
    atomic_folder,
    content_digest,
    copy_file_atomically,
    digest_of,
    read_meta,
    text_digest,
    write_json_atomically,
    write_text_atomically,
)
from autokd.locks import exclusive_lock


def test_an_interrupted_folder_leaves_nothing_behind(tmp_path):
    def interrupted() -> None:
        with atomic_folder(tmp_path / "thing") as temporary:
            (temporary / "half").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_the_first_of_two_makers_wins_and_the_second_is_dropped(tmp_path):
    with atomic_folder(tmp_path / "thing") as slow:
        (slow / "who").write_text("second")
        with atomic_folder(tmp_path / "thing") as quick:
            (quick / "who").write_text("first")
    assert (tmp_path / "thing" / "who").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["thing"]


def test_what_a_killed_process_left_is_removed_after_a_day(tmp_path):
    for name, age_h in ((".thing.aaaa.part", 25), (".thing.bbbb.part", 1), (".other.cccc.part", 25)):
        (tmp_path / name).mkdir()
        then = time.time() - age_h * 3600
        os.utime(tmp_path / name, (then, then))
    with atomic_folder(tmp_path / "thing"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.cccc.part", ".thing.bbbb.part", "thing"]


def test_one_holder_of_a_lock_at_a_time(tmp_path):
    inside, most = 0, 0

    def hold() -> None:
        nonlocal inside, most
        with exclusive_lock(tmp_path / "thing"):
            inside += 1
            most = max(most, inside)
            time.sleep(0.02)
            inside -= 1

    threads = [threading.Thread(target=hold) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_digests_depend_on_content_and_not_on_order(tmp_path):
    assert digest_of(a=1, b=[2, 3]) == digest_of(b=[2, 3], a=1) != digest_of(a=1, b=[3, 2])
    (tmp_path / "abc").write_text("abc")
    assert text_digest("abc") == content_digest(tmp_path / "abc") == "ba7816bf8f01cfea"  # SHA-256 of "abc", FIPS 180-4


def test_an_interrupted_file_leaves_the_old_content_and_nothing_else(tmp_path):
    path = tmp_path / "new folder" / "text"
    write_text_atomically(path, "old")

    def interrupted() -> None:
        with atomic_file(path) as temporary:
            temporary.write_text("ha")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    write_text_atomically(path, "new")
    copy_file_atomically(path, tmp_path / "copy")
    assert (tmp_path / "copy").read_text() == "new"
    assert [file.name for file in path.parent.iterdir()] == ["text"]


def test_meta_data_come_back_and_damaged_ones_are_none(tmp_path):
    write_json_atomically(tmp_path / "meta.json", {"a": 1})
    assert read_meta(tmp_path) == {"a": 1}
    for damaged in ('{"a": ', "[1]"):
        (tmp_path / "meta.json").write_text(damaged)
        assert read_meta(tmp_path) is None
    assert read_meta(tmp_path / "nowhere") is None
