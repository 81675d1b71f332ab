"""The section of an MMDetection detector in a config file; MMDetection itself is not asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from autokd.config import MmdetDetector, TorchvisionDetector, complete_recipes, config_yaml, load_config
from autokd.errors import ConfigError

FILE = """\
data: {{format: shapes}}
teacher: {{framework: mmdet, config: {config}, train: {{epochs: 3}}, options: {{model.neck.out_channels: 64}}}}
student: {{architecture: fcos}}
"""


def test_framework_tells_the_sections_apart_and_torchvision_is_the_ordinary_one():
    config = load_config(FILE.format(config="gfl_r50_fpn_1x_coco"))
    assert isinstance(config.teacher, MmdetDetector)
    assert config.teacher.config == "gfl_r50_fpn_1x_coco"
    assert config.teacher.options == {"model.neck.out_channels": 64}
    assert config.teacher.train.epochs == 3
    assert isinstance(config.student, TorchvisionDetector)


def test_the_resolved_file_reads_back_as_it_was():
    config = load_config(FILE.format(config="gfl_r50_fpn_1x_coco"))
    again = load_config(config_yaml(complete_recipes(config)))
    assert again.teacher == config.teacher
    assert again.student == config.student


def test_a_config_file_is_named_absolutely(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("model = dict()\n")
    monkeypatch.chdir(tmp_path)
    assert Path(load_config(FILE.format(config="mine.py")).teacher.config) == tmp_path / "mine.py"


def test_reading_a_config_file_does_not_run_the_config(tmp_path):
    trap = tmp_path / "trap.py"
    trap.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nmodel = dict()\n")
    load_config(FILE.format(config=trap))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("teacher", "said"),
    [
        ("{framework: mmdet, train: {}}", "teacher.config: is missing"),
        ("{framework: mmdet, config: a, architecture: fcos, train: {}}", "key 'architecture' is not one of"),
        ("{framework: mmdte, config: a, train: {}}", "Did you mean 'mmdet'"),
        ("{framework: mmdet, config: a}", "neither weights nor a training"),
        ("{framework: mmdet, config: a, checkpoint: nowhere.pth}", "there is no such file"),
        ("{framework: mmdet, config: '', train: {}}", "teacher.config"),
    ],
)
def test_mistakes_are_named_with_their_line(teacher, said):
    text = f"data: {{format: shapes}}\nstudent: {{}}\nteacher: {teacher}\n"
    with pytest.raises(ConfigError) as caught:
        load_config(text)
    assert ":3:" in str(caught.value)
    assert said in str(caught.value)
