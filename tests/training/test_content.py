"""Whole folders or none, digests of content."""

from __future__ import annotations

import os
import threading
import time

import pytest
import torch

from autokd.training.content import (
    digest_of,
    exclusive,
    load_weights,
    read_meta,
    save_weights,
    weights_digest,
    whole_folder,
    write_json,
)


def test_an_interrupted_folder_leaves_nothing_behind(tmp_path):
    def interrupted() -> None:
        with whole_folder(tmp_path / "thing") as temporary:
            (temporary / "half").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_the_first_of_two_makers_wins_and_the_second_is_dropped(tmp_path):
    with whole_folder(tmp_path / "thing") as slow:
        (slow / "who").write_text("second")
        with whole_folder(tmp_path / "thing") as quick:
            (quick / "who").write_text("first")
    assert (tmp_path / "thing" / "who").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["thing"]


def test_what_a_killed_process_left_is_removed_after_a_day(tmp_path):
    for name, age_h in ((".thing.aaaa.part", 25), (".thing.bbbb.part", 1), (".other.cccc.part", 25)):
        (tmp_path / name).mkdir()
        then = time.time() - age_h * 3600
        os.utime(tmp_path / name, (then, then))
    with whole_folder(tmp_path / "thing"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.cccc.part", ".thing.bbbb.part", "thing"]


def test_one_holder_of_a_lock_at_a_time(tmp_path):
    inside, most = 0, 0

    def hold() -> None:
        nonlocal inside, most
        with exclusive(tmp_path / "thing"):
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


def test_digests_depend_on_content_and_not_on_order():
    assert digest_of(a=1, b=[2, 3]) == digest_of(b=[2, 3], a=1) != digest_of(a=1, b=[3, 2])
    weights = {"w": torch.tensor([1.0, 2.0]), "n": torch.tensor(3)}
    assert weights_digest(weights) == weights_digest(dict(reversed(weights.items())))
    for other in (
        {**weights, "w": torch.tensor([1.0, 2.1])},
        {**weights, "w": torch.tensor([[1.0, 2.0]])},
        {**weights, "w": torch.tensor([1.0, 2.0], dtype=torch.float64)},
        {"v": weights["w"], "n": weights["n"]},
    ):
        assert weights_digest(other) != weights_digest(weights)


def test_weights_and_meta_come_back_as_they_were(tmp_path):
    save_weights(tmp_path / "w.pt", {"w": torch.nn.Parameter(torch.tensor([1.5]))})
    assert load_weights(tmp_path / "w.pt")["w"].tolist() == [1.5]
    write_json(tmp_path / "meta.json", {"a": 1})
    assert read_meta(tmp_path) == {"a": 1}
    (tmp_path / "meta.json").write_text('{"a": ')
    assert read_meta(tmp_path) is None
    assert read_meta(tmp_path / "nowhere") is None
