"""A whole run with two teachers of different architectures: the space, the results, the report."""

from __future__ import annotations

import json
import math

import pytest
import torch

from autokd.config import load_config
from autokd.errors import ConfigError
from autokd.storage import Results, SearchSummary, TeacherResult, open_existing, read_record
from autokd.study import evaluate_weights, run_search
from autokd.study.observer import SilentObserver

torch.set_num_threads(1)

FILE = """
name: two
data: {format: shapes, image_size_px: [64, 64], num_train: 12, num_val: 8, num_test: 8}
teacher:
- {backbone: {width: 12}, fpn_channels: 16, train: {epochs: 1}}
- {architecture: faster_rcnn, backbone: {width: 8}, fpn_channels: 16, train: {epochs: 1}}
teacher_weights: gap
student: {backbone: {width: 8}, fpn_channels: 16}
space:
  terms: 1
  sources: [feature_map, class_logits]
  transforms: {normalize: [none, standardize]}
  distances: [l2]
search: {trials: 2, enqueue: [fitnet], finalists: 1, finalist_seeds: []}
proxy: {warm_start: {epochs: 1}, epochs: 1, calibration_trials: 2}
full: {epochs: 1, seeds: [0], baselines: [none, pkd]}
runtime: {workers: 0, threads_per_worker: 1}
"""


class Listener(SilentObserver):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs") / "two"
    listener = Listener()
    results = run_search(load_config(FILE), directory, cache_dir=tmp_path_factory.mktemp("cache"), observer=listener)
    return directory, results, listener


@pytest.mark.slow
def test_a_run_with_two_teachers_tells_what_each_is_worth(finished):
    directory, results, _ = finished
    assert Results.read(directory / "results.json") == results
    assert len(results.teachers) == 2
    assert results.teacher in results.teachers
    assert results.teacher.val_ap == max(teacher.val_ap for teacher in results.teachers)
    assert json.loads((directory / "results.json").read_text())["schema"] == 1
    assert any(note.startswith("2 teachers share the loss (gap)") for note in results.notes)
    searched = results.entry("searched").metrics
    assert math.isclose(searched["teacher_share_1"][0] + searched["teacher_share_2"][0], 1, rel_tol=1e-6)
    assert "teacher_share_1" not in results.entry("none").metrics or (
        results.entry("none").metrics["teacher_share_1"] == (None,)
    )
    assert (directory / "report.html").stat().st_size > 10_000


@pytest.mark.slow
def test_the_search_stays_within_what_both_supply_and_says_who_lacks_the_rest(finished):
    directory, _, listener = finished
    [reason] = [text for text in listener.said if text.startswith("left out of the space: source 'class_logits'")]
    assert "teacher 2's class_logits" in reason
    sources = {term.source.name for t in open_existing(directory).trials for term in read_record(t).spec.terms}
    assert sources == {"feature_map"}


def test_weights_of_a_teacher_among_several_are_not_evaluated_by_guess(tmp_path):
    (tmp_path / "weights.pt").write_bytes(b"")
    with pytest.raises(ConfigError, match="2 teachers, so it is not clear whose"):
        evaluate_weights(load_config(FILE), tmp_path / "weights.pt", "test", "teacher", cache_dir=tmp_path)


def test_results_of_one_teacher_say_nothing_of_several():
    one = Results(search=SearchSummary(sampler="mcts"), teacher=TeacherResult(val_ap=0.5))
    assert "teachers" not in json.loads(one.to_json())
    two = one.model_copy(update={"teachers": (TeacherResult(val_ap=0.5), TeacherResult(val_ap=0.25))})
    assert [teacher["val_ap"] for teacher in json.loads(two.to_json())["teachers"]] == [0.5, 0.25]
