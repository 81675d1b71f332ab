"""A list of teachers in a config file: read, checked with its places, and silent where there is one teacher."""

from __future__ import annotations

import pytest

from autokd.config import ResolvedConfig, complete_recipes, config_digest, config_yaml, load_config
from autokd.errors import ConfigError

FILE = """\
data: {format: shapes}
student: {}
teacher:
- {train: {}}
- architecture: retinanet
  backbone: {width: 32}
  train: {epochs: 3}
teacher_weights: gap
"""
ONE = "data: {format: shapes}\nstudent: {}\nteacher: {train: {epochs: 3}}\n"


def resolved(text: str) -> ResolvedConfig:
    return complete_recipes(load_config(text))


def test_teachers_are_read_in_their_order():
    config = load_config(FILE)
    assert [teacher.architecture for teacher in config.teachers] == ["fcos", "retinanet"]
    assert config.teacher == config.teachers
    assert config.teacher_weights == "gap"
    assert load_config(FILE.replace("teacher_weights: gap\n", "")).teacher_weights == "equal"
    assert load_config(FILE.replace("gap", "[3, 1]")).teacher_weights == (3.0, 1.0)


def test_a_resolved_file_reads_back_the_same():
    for factors in ("gap", "[3, 1]"):
        config = resolved(FILE.replace("gap", factors))
        again = resolved(config_yaml(config))
        assert (again.teachers, again.teacher_weights) == (config.teachers, config.teacher_weights)
        assert config_yaml(again) == config_yaml(config)


def test_a_list_of_one_teacher_is_that_teacher():
    one = resolved(ONE)
    listed = resolved(ONE.replace("{train: {epochs: 3}}", "[{train: {epochs: 3}}]"))
    assert listed.teacher == one.teacher == one.teachers[0]
    assert config_yaml(listed) == config_yaml(one)
    assert config_digest(listed) == config_digest(one)


def test_factors_and_teachers_tell_configurations_apart():
    texts = [
        FILE,
        FILE.replace("gap", "gradient"),
        FILE.replace("gap", "[2, 1]"),
        FILE.replace("width: 32", "width: 8"),
    ]
    assert len({config_digest(resolved(text)) for text in texts}) == 4


@pytest.mark.parametrize(
    ("old", "new", "place", "found"),
    [
        ("width: 32", "widht: 32", "<text>:6: teacher[1].backbone.widht", "Did you mean 'width'?"),
        ("retinanet", "retina", "<text>:5: teacher[1].architecture", "Did you mean 'retinanet'?"),
        ("- {train: {}}", "- {framework: mmdet}", "<text>:4: teacher[0].config", "is missing"),
        ("- {train: {}}", "- {framework: keras}", "<text>:4: teacher[0].framework", "'keras'"),
        ("- {train: {}}", "- 3", "<text>:4: teacher[0]", "found 3"),
        ("- {train: {}}", "- {}", "<text>:4: teacher[0]", "neither weights nor a training"),
        ("{train: {}}", "{checkpoint: absent.pt}", "<text>:4: teacher[0].checkpoint", "no such file"),
        ("- {train: {}}", "- {train: {}}\n- {train: {}}", "<text>:3: teacher", "teachers 1 and 2 are one and the same"),
        ("gap", "gaps", "<text>:8: teacher_weights", "Did you mean 'gap'?"),
        ("gap", "[1, 2, 3]", "<text>:8: teacher_weights", "3 numbers for 2 teachers"),
        ("gap", "[1, 0]", "<text>:8: teacher_weights", "positive numbers"),
        ("gap", "[1, .inf]", "<text>:8: teacher_weights", "positive numbers"),
        ("gap", "[1, true]", "<text>:8: teacher_weights", "found true, which is no number"),
        ("gap", "2", "<text>:8: teacher_weights", "positive numbers"),
    ],
)
def test_a_wrong_list_is_refused_with_place_and_remedy(old, new, place, found):
    with pytest.raises(ConfigError) as error:
        load_config(FILE.replace(old, new))
    assert place in str(error.value)
    assert found in str(error.value)


@pytest.mark.parametrize(
    ("teacher", "place", "found"),
    [
        ("[]", "<text>:3: teacher", "the list is empty"),
        ("[{backbone: {widht: 3}}]", "<text>:3: teacher[0].backbone.widht", "Did you mean 'width'?"),
        ("{train: {}}\nteacher_weights: gap", "<text>:4: teacher_weights", "there is one teacher"),
        ("{train: {}}\nteacher_weights: [1]", "<text>:4: teacher_weights", "there is one teacher"),
    ],
)
def test_a_list_that_is_none_is_refused(teacher, place, found):
    with pytest.raises(ConfigError) as error:
        load_config(ONE.replace("{train: {epochs: 3}}", teacher))
    assert place in str(error.value)
    assert found in str(error.value)
