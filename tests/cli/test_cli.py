"""The command line: quick, stable, and clear about what is wrong."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest
from PIL import Image
from typer.testing import CliRunner

from autokd.cli import app
from autokd.errors import ConfigError
from autokd.presets import preset_names

SPACE = "data: {format: shapes}\nteacher: {train: {}}\nstudent: {}\n"

# fmt: off
OPTIONS = {
    "search": {
        "--run-dir", "--trials", "--workers", "--ray-address", "--storage", "--resume", "--cache-dir", "--forecast",
        "--log", "--quiet", "--json",
    },
    "plan": {"--price", "--gpus", "--seconds", "--trials", "--workers", "--json", "--cache-dir"},
    "distill": {
        "--run-dir", "--gradient-ratio", "--resume", "--workers", "--ray-address", "--cache-dir", "--log", "--quiet",
        "--json",
    },
    "evaluate": {"--weights", "--split", "--teacher", "--cache-dir", "--json"},
    "runs": {"--json"},
    "compare": {"--picture", "--json"},
    "init": {
        "--data", "--teacher", "--student", "--checkpoint", "--budget", "--trials", "--seconds", "--force",
        "--cache-dir",
    },
    "predict": {
        "--out", "--format", "--threshold", "--config", "--teacher", "--batch-size", "--every", "--cache-dir",
        "--quiet", "--json",
    },
    "export": {"--format", "--out", "--images", "--config", "--cache-dir", "--quiet", "--json"},
    "data": {"--whole", "--cache-dir"},
    "report": {"--cache-dir", "--storage"},
    "dashboard": {"--port", "--write", "--price"},
    "space": {"--samples"},
    "presets": set(),
    "show": set(),
    "doctor": {"--json"},
    "submit": {
        "--address", "--trials", "--storage", "--run-dir", "--cache-dir", "--send-package", "--follow", "--no-follow",
    },
}
# fmt: on


def invoke(*arguments: str):
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"})


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from autokd.cli import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("command", OPTIONS)
def test_options_of_each_command_are_stable(command):
    result = invoke(command, "--help")
    assert result.exit_code == 0
    assert set(re.findall(r"--[a-z-]+", result.output)) - {"--help"} == OPTIONS[command]


def test_help_lists_every_command():
    assert all(command in invoke("--help").output for command in OPTIONS)


def test_completion_offers_commands():
    environment = {"_AUTOKD_COMPLETE": "complete_bash", "COMP_WORDS": "autokd pre", "COMP_CWORD": "1"}
    output = CliRunner().invoke(app, [], prog_name="autokd", env=environment).output
    assert sorted(output.split()) == ["predict", "presets"]


@pytest.mark.parametrize("arguments", [["--help"], ["search", "--help"], ["presets"], ["show", "pkd"]])
def test_quick_commands_load_nothing_heavy(arguments):
    code = (
        "import sys\nfrom autokd.cli.app import app\n"
        f"try:\n    app({arguments!r})\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'ray', 'optuna', 'torchvision', 'plotly', 'scipy', 'pycocotools'} & set(sys.modules)\n"
        "print('heavy:', sorted(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "heavy: []" in done.stdout, done.stdout + done.stderr


def test_presets_are_listed_with_paper():
    output = invoke("presets").output
    assert all(name in output for name in preset_names())
    assert "2207.02039" in output


def test_show_prints_formula_and_digest(tmp_path):
    path = tmp_path / "kd.yaml"
    path.write_text("name: mine\nterms:\n- {source: feature_map, distance: l2, weight: {relative: 40}}\n")
    output = invoke("show", str(path)).output
    assert "L = 40 x l2(F)" in output
    assert "digest" in output


def test_data_prints_layout_counts_and_what_splits_share(tmp_path):
    for split in ("train2017", "val2017"):
        (tmp_path / "set" / split).mkdir(parents=True)
        Image.new("L", (60, 40), 7).save(tmp_path / "set" / split / "a.png")
        (tmp_path / "set" / "annotations").mkdir(exist_ok=True)
        annotations = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 30, 20]}]
        (tmp_path / "set" / "annotations" / f"instances_{split}.json").write_text(
            json.dumps(
                {
                    "images": [{"id": 1, "file_name": "a.png", "width": 60, "height": 40}],
                    "annotations": annotations,
                    "categories": [{"id": 1, "name": "cat"}],
                }
            )
        )
    (tmp_path / "kd.yaml").write_text(f"data: {{root: {tmp_path / 'set'}}}\nteacher: {{train: {{}}}}\nstudent: {{}}\n")
    options = ("--whole", "--cache-dir", str(tmp_path / "cache"))
    result = invoke("data", str(tmp_path / "kd.yaml"), *options)
    assert result.exit_code == 0, result.output
    assert "train: annotations/instances_train2017.json" in result.output
    assert "val: val2017" in result.output
    assert "train: 1 images, 1 boxes of 1 classes" in result.output
    assert result.output.count("grayscale images, made RGB: 1") == 2
    assert "train and val share 1 images" in result.output
    digests = re.findall("digest of every byte: ([0-9a-f]{32})", result.output)
    assert len(digests) == 2
    assert digests[0] == digests[1], "the splits hold the same bytes"
    with (tmp_path / "set" / "val2017" / "a.png").open("ab") as file:
        file.write(b"more")
    changed = re.findall("digest of every byte: (.*)", invoke("data", str(tmp_path / "kd.yaml"), *options).output)
    assert changed[0] == digests[0] != changed[1]


def test_space_shows_the_tree_and_its_size(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text(SPACE + "space: {terms: {min: 1, max: 2}}\n")
    output = invoke("space", str(path)).output
    assert "distinct distillers" in output
    assert "softmax_cells" in output
    assert "log-uniform in [3, 1000]" in output


def test_the_default_space_is_shown_by_its_families_with_what_the_pair_lacks_and_what_comes_first(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text(SPACE)
    output = " ".join(invoke("space", str(path)).output.split())
    assert "sums of 1 to 4 parts, of 2" in output
    assert "family semantic_guided" in output
    assert "g_detkd_sgfi: gradient ratio 300, published weights, each at every strength" in output
    assert "left out: preset 'ld': source 'localization_distribution' needs" in output
    assert "tried first: global_knowledge; fitnet x10 linear_decay + g_detkd_sgfi x10 + crosskd" in output


def test_a_wrong_file_ends_with_its_message_and_exit_code_two(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text(SPACE + "serch: {}\n")
    done = run("search", str(path))
    assert done.returncode == 2
    assert "space.yaml:4: serch" in done.stderr
    assert "Did you mean 'search'?" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_preset_gets_a_suggestion():
    done = run("show", "pdk")
    assert done.returncode == 2
    assert "Did you mean 'pkd'?" in done.stderr


UNFIT = SPACE + "search: {enqueue: [ld, pkd]}\nfull: {baselines: [none, ld]}\n"


def test_space_says_which_baselines_and_first_trials_do_not_fit(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text(UNFIT)
    output = " ".join(invoke("space", str(path)).output.split())
    assert "search.enqueue: ld is not tried first" in output
    assert "refuse this file. full.baselines: this pair cannot be trained with ld" in output
    assert "full: {baselines: [none]}" in output


@pytest.mark.parametrize("command", [["search"], ["distill", "pkd"]])
def test_baselines_that_do_not_fit_are_refused_before_anything_is_written(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "space.yaml").write_text(UNFIT)
    result = invoke(*command, "space.yaml")
    assert isinstance(result.exception, ConfigError)
    assert "full.baselines" in str(result.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["space.yaml"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, "3000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, None)],
)
def test_threads_do_not_wait_long_for_one_another_unless_told_to(given, expected):
    code = (
        "import os, sys\nfrom autokd.cli import main\nassert 'torch' not in sys.modules\nsys.argv[1:] = ['presets']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\nprint('spin', os.environ.get('GOMP_SPINCOUNT'))"
    )
    environment = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")} | given
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=environment)
    assert done.stdout.splitlines()[-1] == f"spin {expected}"


def test_a_password_on_the_command_line_ends_the_command_and_is_not_repeated(tmp_path):
    (tmp_path / "mine.yaml").write_text("data: {format: shapes}\nteacher: {train: {}}\nstudent: {}\n")
    address = "postgresql+psycopg://user:hunter2@127.0.0.1:1/db"
    commands = [
        ["search", str(tmp_path / "mine.yaml"), "--run-dir", str(tmp_path / "run"), "--storage", address],
        ["submit", str(tmp_path / "mine.yaml"), "--address", "http://127.0.0.1:1", "--storage", address],
        ["report", str(tmp_path), "--storage", address],
        ["dashboard", address],
    ]
    # One process for all: the imports take longer than the commands.
    code = (
        "import sys\nfrom autokd.cli import main\nfor command in %r:\n    sys.argv[1:] = command\n    try:\n"
        "        main()\n    except SystemExit as ended:\n        print('ended', ended.code, file=sys.stderr)"
    )
    command = [sys.executable, "-c", code % (commands,)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr.count("ended 2") == done.stderr.count("has a password") == len(commands), done.stderr
    assert "hunter2" not in done.stdout + done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]


def test_an_output_that_cannot_show_a_character_replaces_it(monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "latin-1")  # a redirected console, a locale without UTF-8
    ended = run("presets")
    assert ended.returncode == 0, ended.stderr
    assert "pkd" in ended.stdout


def test_a_tilde_on_the_command_line_is_the_home_folder(monkeypatch, tmp_path):
    from autokd import api
    from autokd.config import load_config

    monkeypatch.setenv("HOME", str(tmp_path))  # the shell does not expand --run-dir=~/mine
    assert api.run_directory(load_config(SPACE), "~/mine") == tmp_path / "mine"
    assert api.cache_directory("~/cache") == tmp_path / "cache"
