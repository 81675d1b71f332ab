"""A run says how far it is, in a file that others read while it runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from autokd.storage import RunProgress
from autokd.study import SilentObserver
from autokd.study.observer import TrialNews
from autokd.study.progress import ProgressRecorder


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def news(number: int, value: float | None, done: int) -> TrialNews:
    return TrialNews(number, f"loss {number}", "finished", value, value, 1.0, done, 10)


def read(folder: Path) -> RunProgress:
    found = RunProgress.read(folder)
    assert found is not None
    return found


def test_stages_the_best_trial_and_the_time_left_are_recorded(tmp_path: Path) -> None:
    clock = Clock()
    recorder = ProgressRecorder(SilentObserver(), clock)
    recorder.say("before the folder is held")
    with recorder.recording(tmp_path):
        recorder.stage("teacher", 0, 2)
        clock.now += 10
        recorder.stage("teacher", 2, 2)
        for i, value in enumerate((0.5, 2.0, None, 1.0)):
            clock.now += 5
            recorder.trial_ended(news(i, value, i + 1))
        found = read(tmp_path)
        assert [(stage.name, stage.done, stage.total) for stage in found.stages] == [
            ("teacher", 2, 2),
            ("trials", 4, 10),
        ]
        assert (found.best, found.best_trial, found.best_formula) == (2.0, 1, "loss 1")
        assert found.stages[1].left_s == pytest.approx(6 * 20 / 4, rel=0.35)
        assert found.stages[0].left_s == 0.0
        assert not found.is_over
        assert found.said == ("before the folder is held",)
    assert read(tmp_path).is_over


def test_a_resumed_run_keeps_the_best_of_before(tmp_path: Path) -> None:
    with (first := ProgressRecorder(SilentObserver())).recording(tmp_path):
        first.trial_ended(news(3, 2.0, 1))
    with (second := ProgressRecorder(SilentObserver())).recording(tmp_path):
        second.trial_ended(news(4, 1.0, 2))
    assert (read(tmp_path).best, read(tmp_path).best_trial) == (2.0, 3)


def test_a_folder_that_cannot_be_written_ends_no_run(tmp_path: Path) -> None:
    recorder = ProgressRecorder(SilentObserver())
    (tmp_path / "file").write_text("")
    with recorder.recording(tmp_path / "file"):
        recorder.stage("teacher", 1, 2)


def test_a_broken_file_is_no_progress(tmp_path: Path) -> None:
    assert RunProgress.read(tmp_path) is None
    (tmp_path / "progress.json").write_text('{"began_s": "yesterday"}')
    assert RunProgress.read(tmp_path) is None
