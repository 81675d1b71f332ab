"""The file of a checkpoint: whole, of this training and version, and data alone; or it is not believed."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import logging
import pickle
import threading
from pathlib import Path

import pytest
import torch

from autokd.errors import CheckpointError
from autokd.jobs import TRAINING_VERSION
from autokd.training import CheckpointFile
from autokd.training.checkpoint.file import read_checkpoint, write_checkpoint

STATE = {
    "position": {"step": 3},
    "numbers": torch.arange(5.0),
    "nested": [{"a": torch.ones(2, dtype=torch.int64)}, None],
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "folder" / "a.checkpoint"
    write_checkpoint(found, "key", STATE)
    return found


def test_a_state_comes_back_as_it_was(path):
    found = read_checkpoint(path, "key")
    assert found is not None
    assert found["position"] == {"step": 3}
    assert torch.equal(found["numbers"], STATE["numbers"])
    assert torch.equal(found["nested"][0]["a"], torch.ones(2, dtype=torch.int64))
    assert found["nested"][1] is None
    assert read_checkpoint(path.with_name("none"), "key") is None


def test_the_checksum_is_that_of_all_that_follows_the_header(path):
    header, payload = path.read_bytes()[:512], path.read_bytes()[512:]
    assert json.loads(header)["sha256"] == hashlib.sha256(payload).hexdigest()
    assert torch.load(io.BytesIO(payload), weights_only=True)["position"] == {"step": 3}


@pytest.mark.parametrize("size", [0, 1, 511, 512, 600, -1])
def test_a_file_cut_off_is_not_believed(path, size):
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(CheckpointError, match="Remove it"):
        read_checkpoint(path, "key")


def test_a_changed_bit_anywhere_is_noticed(path):
    content = path.read_bytes()
    for place in range(0, len(content), 97):
        changed = bytearray(content)
        changed[place] ^= 1
        path.write_bytes(changed)
        try:
            found = read_checkpoint(path, "key")
        except CheckpointError:
            continue
        # The header is padded with spaces: a bit there changes no word of it.
        assert place < 512
        assert found is not None
        assert torch.equal(found["numbers"], STATE["numbers"])


def test_a_file_of_another_training_is_refused(path):
    with pytest.raises(CheckpointError, match="another training"):
        read_checkpoint(path, "other")


@pytest.mark.parametrize("field", ["format", "training_version"])
def test_a_file_of_another_version_is_refused(path, field):
    content = path.read_bytes()
    header = json.loads(content[:512])
    header[field] = TRAINING_VERSION + 7
    path.write_bytes(json.dumps(header).encode().ljust(512) + content[512:])
    with pytest.raises(CheckpointError, match="another version"):
        read_checkpoint(path, "key")


def test_code_in_a_file_with_a_right_checksum_is_not_executed(path):
    class Malice:
        def __reduce__(self):
            return (Path.write_text, (path.with_name("executed"), "yes"))

    payload = pickle.dumps({"position": Malice()})
    header = json.loads(path.read_bytes()[:512]) | {"sha256": hashlib.sha256(payload).hexdigest()}
    path.write_bytes(json.dumps(header).encode().ljust(512) + payload)
    with pytest.raises(CheckpointError, match="something else than data"):
        read_checkpoint(path, "key")
    assert not path.with_name("executed").exists()


def test_a_training_begins_anew_with_a_word_if_its_file_cannot_be_used(path, caplog):
    path.write_bytes(b"half")
    with caplog.at_level(logging.WARNING):
        assert CheckpointFile(path, "key", 60.0).saved is None
    assert "begins anew" in caplog.text
    assert str(path) in caplog.text


def test_what_a_killed_process_had_begun_to_write_is_removed(path):
    part = path.with_name(f".{path.name}.12345678.part")
    part.write_bytes(b"half")
    other = path.with_name(".b.checkpoint.12345678.part")
    other.write_bytes(b"half")
    saved = CheckpointFile(path, "key", 60.0).saved
    assert saved is not None
    assert not part.exists()
    assert other.exists()


def test_a_training_that_cannot_be_saved_goes_on_and_says_so(tmp_path, caplog):
    (tmp_path / "file").write_text("no folder")
    checkpoints = CheckpointFile(tmp_path / "file" / "a.checkpoint", "key", 0.0)
    with caplog.at_level(logging.WARNING), checkpoints.running():
        assert "cannot be saved on its way" in caplog.text  # before the first step
        checkpoints.after_step(lambda: STATE)
    assert "cannot be written" in caplog.text


def test_a_disk_without_room_is_named_before_the_first_step(tmp_path, caplog):
    with caplog.at_level(logging.WARNING), CheckpointFile(tmp_path / "a", "key", 60.0).running(10**18):
        assert "Make room" in caplog.text


def test_a_checkpoint_to_continue_from_that_is_not_there_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint to continue from"):
        _ = CheckpointFile(tmp_path / "a", "key", 60.0, continue_from=tmp_path / "b").saved


class Clock:
    """A clock whose hands the test moves; writing takes ``write_s`` of a thread's CPU time."""

    def __init__(self, write_s: float) -> None:
        self.now, self.write_s, self._cpu = 0.0, write_s, 0.0

    def monotonic(self) -> float:
        return self.now

    def thread_time(self) -> float:
        self._cpu += self.write_s
        return self._cpu


@pytest.mark.parametrize(
    ("every_s", "write_s", "interval_s"),
    [
        (300.0, 0.02, 10.0),  # cheap: as often as is worth a file
        (300.0, 0.5, 50.0),  # 1% of the time
        (300.0, 5.0, 300.0),  # 1% would be later than asked for
        (300.0, 60.0, 1200.0),  # 300 s would be 20% of the time: 5%
        (4.0, 0.02, 4.0),
        (0.0, 60.0, 1.0),  # every step
    ],
)
def test_intervals_follow_what_a_checkpoint_costs(tmp_path, monkeypatch, every_s, write_s, interval_s):
    monkeypatch.setattr("autokd.training.checkpoint.checkpoints.time", clock := Clock(write_s))
    checkpoints, saved_at = CheckpointFile(tmp_path / "a", "key", every_s), []

    def snapshot():
        saved_at.append(clock.now)
        return STATE

    with checkpoints.running(num_bytes=0):
        while len(saved_at) < 4 and clock.now < 10_000:
            clock.now += 1.0  # a step
            checkpoints.after_step(snapshot)
            for thread in threading.enumerate():
                if thread.name == "checkpoint":
                    thread.join()
    assert [later - earlier for earlier, later in itertools.pairwise(saved_at[1:])] == [interval_s] * 2


def test_the_end_of_an_epoch_is_a_welcome_place(tmp_path, monkeypatch):
    monkeypatch.setattr("autokd.training.checkpoint.checkpoints.time", clock := Clock(1.0))
    checkpoints, saved_at = CheckpointFile(tmp_path / "a", "key", 300.0), []

    def snapshot():
        saved_at.append(clock.now)
        return STATE

    with checkpoints.running(num_bytes=int(5e8)):  # a cost of 1 s by guess
        clock.now = 49.0
        checkpoints.after_epoch(snapshot)
        clock.now = 50.0
        checkpoints.after_step(snapshot)
        assert saved_at == []
        checkpoints.after_epoch(snapshot)
    assert saved_at == [50.0]


def test_at_most_one_write_is_in_flight_and_the_copy_is_that_of_its_step(tmp_path, monkeypatch):
    written, may_end = [], threading.Event()

    def slow(path, key, state):
        may_end.wait(20)
        written.append(state["step"])

    monkeypatch.setattr("autokd.training.checkpoint.checkpoints.write_checkpoint", slow)
    with (checkpoints := CheckpointFile(tmp_path / "a", "key", 0.0)).running():
        for step in range(5):
            checkpoints.after_step(lambda step=step: {"step": step})
        assert written == []
        may_end.set()
    assert written == [0], "steps during a write are not queued"
