"""The commands in README and docs exist with their options, and the Python blocks are Python.

Each line of a shell block that calls ``autokd`` is read by the command line's own parser, which does not run it. What
runs for real is in the tests of the commands, and of the how-tos (``tests/mmdet_training``, ``tests/cli``).
"""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import click
import pytest
import typer

from autokd.cli import app

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
NOTATION = {"docs/architecture.md"}
"""Pages whose blocks list signatures."""
_OWN = getattr(typer, "_click", click)  # newer Typers bring a click of their own
_VENDORED = (_OWN.exceptions.ClickException, typer.Exit)
_BLOCK = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def _blocks(*languages: str) -> list[tuple[str, str]]:
    """(page, text) of each fenced block in one of the languages."""
    return [
        (page.relative_to(ROOT).as_posix(), block[2])
        for page in PAGES
        for block in _BLOCK.finditer(page.read_text(encoding="utf-8"))
        if block[1] in languages
    ]


def _commands() -> list[tuple[str, str]]:
    """(page, command) of each call of autokd; continued lines are joined, comments left out."""
    lines = [
        (page, line.strip())
        for page, text in _blocks("sh", "bash", "shell", "console")
        for line in text.replace("\\\n", " ").splitlines()
    ]
    return [(page, line.removeprefix("$ ")) for page, line in lines if re.match(r"(\$ )?autokd\b", line)]


COMMANDS = _commands()


def problem_of(line: str) -> str:
    """Return why the command line would refuse a line, without running it; empty if it would not."""
    words = shlex.split(line, comments=True)
    stops = [i for i, word in enumerate(words) if word in ("|", ">", "&&", ";", "&")]
    words = words[1 : stops[0] if stops else None]
    command: click.Command = typer.main.get_command(app)  # type: ignore[assignment]
    context: click.Context | None = None
    try:
        while True:
            named = context.info_name if context else "autokd"
            context = command.make_context(named, list(words), parent=context)
            rest = [*getattr(context, "_protected_args", ()), *context.args]
            if not hasattr(command, "commands") or not rest:
                return ""
            name, command, words = command.resolve_command(context, rest)  # type: ignore[attr-defined]
            context.info_name = name
    except (click.ClickException, click.exceptions.Exit, *_VENDORED) as error:
        if type(error).__name__ in ("Exit", "NoArgsIsHelpError"):  # --help and the like
            return ""
        return getattr(error, "message", "") or str(error)


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=[f"{page}: {line}"[:90] for page, line in COMMANDS])
def test_a_command_of_a_page_exists_with_its_options(page, line):
    assert problem_of(line) == "", page


def test_the_check_refuses_what_does_not_exist():
    assert "No such command" in problem_of("autokd serach mine.yaml")
    assert "No such option: --trails" in problem_of("autokd search mine.yaml --trails 3")
    assert problem_of("autokd search mine.yaml --trials 3  # forty by default") == ""
    assert len(COMMANDS) > 10


PYTHON = [(page, text) for page, text in _blocks("python", "py") if page not in NOTATION]


@pytest.mark.parametrize(("page", "text"), PYTHON)
def test_a_python_block_is_python(page, text):
    ast.parse(text, filename=page)
