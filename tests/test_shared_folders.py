"""Folders that several users share: planted links are not followed, and what AutoKD makes is private by default."""

from __future__ import annotations

import os
import stat

import pytest

from autokd.benchmark.recording.scratch import Scratch
from autokd.config import load_config
from autokd.detectors import resolve
from autokd.errors import StorageError
from autokd.files import atomic_folder, make_private_folder, write_text_atomically
from autokd.jobs import Job
from autokd.locks import exclusive_lock
from autokd.storage import RunDirectory

CONFIG = "data: {format: shapes}\nteacher: {train: {}}\nstudent: {}\n"


@pytest.fixture
def victim(tmp_path):
    path = tmp_path / "victim"
    path.write_text("dear")
    return path


def test_the_file_of_a_lock_is_not_opened_through_a_link(tmp_path, victim):
    (tmp_path / ".abc.lock").symlink_to(victim)
    with pytest.raises(OSError, match="must not be a link"), exclusive_lock(tmp_path / "abc"):
        pass
    assert victim.read_text() == "dear"


def test_the_file_of_a_lock_is_not_emptied(tmp_path, victim):
    os.link(victim, tmp_path / ".abc.lock")
    with exclusive_lock(tmp_path / "abc"):
        pass
    assert victim.read_text() == "dear"


def test_a_claim_on_a_training_is_not_written_through_a_link(tmp_path, victim):
    scratch = Scratch(tmp_path / "scratch", resolve(load_config(CONFIG)))
    (scratch.folder / "claims" / "a").symlink_to(victim)
    with pytest.raises(OSError, match="must not be a link"), scratch.claim(Job("a", None, "full", 0)):
        pass
    assert victim.read_text() == "dear"


def test_the_lock_of_a_run_is_not_written_through_a_link(tmp_path, victim):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(victim)
    with pytest.raises(StorageError, match="must not be a link"):
        RunDirectory.start(tmp_path / "run", resolve(load_config(CONFIG)))
    assert victim.read_text() == "dear"


def test_a_written_file_replaces_a_link(tmp_path, victim):
    (tmp_path / "text").symlink_to(victim)
    write_text_atomically(tmp_path / "text", "new")
    assert victim.read_text() == "dear"
    assert not (tmp_path / "text").is_symlink()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give a link to another user")
@pytest.mark.parametrize("planted", ["thing", "."])
def test_a_folder_that_is_another_users_link_is_refused(tmp_path, planted):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    link = tmp_path / "cache" / "teachers" / planted if planted != "." else tmp_path / "cache" / "teachers"
    link.parent.mkdir(parents=True)
    link.symlink_to(elsewhere)
    place = tmp_path / "cache" / "teachers" / "thing"
    with atomic_folder(place):  # the user's own links are followed: caches lie on other disks
        pass
    os.lchown(link, 12345, 12345)
    with pytest.raises(PermissionError, match="another user has put a link"), atomic_folder(place):
        pass
    with pytest.raises(PermissionError, match="another user has put a link"), exclusive_lock(place):
        pass


def test_a_new_cache_is_the_users_alone_and_an_old_one_keeps_its_permissions(tmp_path):
    for name in ("new", "new"):
        make_private_folder(tmp_path / "above" / name)
    assert stat.S_IMODE((tmp_path / "above" / "new").stat().st_mode) == 0o700
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o2770)
    make_private_folder(shared)
    assert stat.S_IMODE(shared.stat().st_mode) == 0o2770


def test_files_have_the_permissions_of_the_umask(tmp_path):
    before = os.umask(0o077)
    try:
        write_text_atomically(tmp_path / "text", "mine")
        with atomic_folder(tmp_path / "folder") as folder:
            (folder / "a").write_text("mine")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "text").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o700
