"""The commands of ``autokd benchmark``: stable options, and nothing heavy is imported to list them."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from autokd.cli import app

AMOUNT = {"--seeded", "--best", "--seeds", "--none-seeds", "--recipes"}
OPTIONS = {
    "record": {"--scratch", "--cache-dir", "--device", "--minutes", "--part"} | AMOUNT,
    "status": {"--scratch"} | AMOUNT,
    "collect": {"--table"},
    "portfolio": {"--output", "--leave-out"},
    "strategies": {"--budget", "--repeats"},
    "check": {"--table", "--cache-dir", "--rows", "--recipe", "--device", "--random-seed"},
    "compare": {
        "--output", "--samplers", "--workers", "--repeats", "--objective", "--reward", "--metric", "--epochs", "--top",
        "--trials", "--regret-at", "--only", "--processes",
    },
}  # fmt: skip


def helped(*arguments: str) -> str:
    environment = {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
    return CliRunner().invoke(app, ["benchmark", *arguments, "--help"], env=environment).output


@pytest.mark.parametrize("command", OPTIONS)
def test_options_of_each_command_are_stable(command):
    assert set(re.findall(r"--[a-z-]+", helped(command))) - {"--help"} == OPTIONS[command]


def test_help_lists_every_command_and_loads_nothing_heavy():
    assert all(command in helped() for command in OPTIONS)
    code = (
        "import sys\nfrom autokd.cli import app\n"
        "try:\n    app(['benchmark', '--help'])\nexcept SystemExit:\n    pass\n"
        "print('heavy:', sorted({'torch', 'ray', 'optuna', 'scipy'} & set(sys.modules)))"
    )
    assert "heavy: []" in subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
