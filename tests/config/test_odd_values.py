"""Values that a reader would turn into something else than what was meant are refused, with place and remedy."""

from __future__ import annotations

import pytest

from autokd.config import load_config
from autokd.errors import ConfigError

BASE = "data: {format: shapes}\nteacher: {train: {}}\nstudent: {}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("full: {epochs: true}", r":4: full\.epochs: found true, which is no number"),
        ('full: {epochs: "1_000"}', r":4: full\.epochs: found '1_000', a text"),
        ("full: {seeds: [true]}", r"full\.seeds: found true"),
        ("full: {seeds: [-1]}", r"full\.seeds.*greater than or equal to 0"),
        ("full: {learning_rate: .inf}", r"full\.learning_rate.*finite"),
        ("full: {scale_range: [2, 0.5]}", r"full\.scale_range.*smaller number first"),
        ("full: {scale_range: [1, .inf]}", r"full\.scale_range.*finite"),
        ("search: {trials: 9000000000000000000}", r"search\.trials: found 9\d+, more than 1,000,000,000"),
        ("runtime: {workers: 1000000000000}", r"runtime\.workers: found"),
        ("full: {epochs: !!int foo}", r":4: 'foo' cannot be read as int"),
        ("name: 2024-11-05", r":4: '2024-11-05' is read as a date. Put it into quotes"),
    ],
)
def test_nonsense_is_refused_with_its_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(BASE + text + "\n")


def test_sizes_say_how_they_are_written() -> None:
    with pytest.raises(ConfigError, match=r"data\.image_size_px: found 96. Write height and width .*\[height, width\]"):
        load_config(BASE.replace("shapes}", "shapes, image_size_px: 96}"))
    with pytest.raises(ConfigError, match=r"student\.backbone\.width"):
        load_config(BASE.replace("student: {}", "student: {backbone: {width: 1000000}}"))


def test_a_section_whose_lines_are_commented_out_is_one_that_is_left_out() -> None:
    empty = load_config(BASE + "runtime:\n  # workers: 0\nsearch:\n")
    assert empty == load_config(BASE)


def test_sections_share_keys_by_a_merge() -> None:
    merged = load_config(BASE + "full: &long\n  epochs: 7\nproxy:\n  <<: *long\n  batch_size: 2\n")
    assert (merged.full.epochs, merged.proxy.epochs, merged.proxy.batch_size) == (7, 7, 2)
