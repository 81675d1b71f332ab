"""A run's name is one component of a path: nobody's file chooses where a run's folder lies."""

from __future__ import annotations

from pathlib import Path

import pytest

from autokd import api
from autokd.config import load_config
from autokd.documents import dump_yaml
from autokd.errors import ConfigError

REST = {"data": {"format": "shapes"}, "teacher": {"train": {}}, "student": {}}
BAD = [
    "../../x",
    "/tmp/x",
    "a/b",
    "a\\b",
    "..",
    ".",
    "a\nb",
    "a\x1b[31m",
    " a",
    "a ",
    "~x",
    "-rf",
    "x" * 300,
    "\u202ex",
]


@pytest.mark.parametrize("name", BAD)
def test_a_name_that_leads_elsewhere_is_refused_with_its_line(name):
    with pytest.raises(ConfigError, match=r"<text>:1: name: .*write one plain word"):
        load_config(dump_yaml({"name": name} | REST))


@pytest.mark.parametrize("name", ["fruit", "fruit 2", "früchte", "a.b-c_d", "..a", "3"])
def test_plain_names_name_the_folder_of_the_run(name):
    config = load_config(dump_yaml({"name": name} | REST))
    assert api.run_directory(config) == Path("runs") / name
    assert api.run_directory(config, None, "pkd") == Path("runs") / f"{name}-pkd"


@pytest.mark.parametrize("name", BAD)
def test_the_name_of_a_distiller_leads_nowhere_else_either(name):
    config = load_config(dump_yaml(REST))
    with pytest.raises(ConfigError, match="give --run-dir"):
        api.run_directory(config, None, name)
    assert api.run_directory(config, "anywhere", name) == Path("anywhere")


def test_a_file_whose_name_is_no_name_gets_an_ordinary_one(tmp_path):
    path = tmp_path / "..yaml"
    path.write_text(dump_yaml(REST))
    assert load_config(path).name == "autokd"
