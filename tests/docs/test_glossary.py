"""The texts that a user reads keep to the field's words: private ones are in docs/glossary.md, retired ones nowhere.

The texts are README.md, the pages of docs/ (glossary and style guide left out: they name the words), the help of every
command, and the strings of the errors that AutoKD raises. A retired word is allowed again by giving it a row in one of
the glossary's tables with the head "word | meaning".
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from autokd.cli import app

ROOT = Path(__file__).parents[2]
GLOSSARY = ROOT / "docs" / "glossary.md"
PAGES = [ROOT / "README.md", *(p for p in sorted((ROOT / "docs").glob("*.md")) if p.stem not in ("glossary", "style"))]
CONFIG_PAGES = [page for page in PAGES if page.stem in ("space-file", "config-file")]
COMMANDS = ("", *sorted(typer.main.get_command(app).commands))  # type: ignore[attr-defined]

DIALECT = {
    "so many": "name the number",
    "nobody": "no trial, no process, ...",
    "heard": "received, read",
    "told": "printed, raised, reported, distinguished",
    "stands": "is, is stored, is in",
    "stand still": "is frozen, is fixed",
    "hand over": "write",
    "hands over": "writes",
    "handed over": "written",
    "whoever": "the caller, the user, ...",
    "at work": "in use",
    "settles": "decides, resolves",
}
"""Turns of speech that no reader of the field's papers expects -> what to write."""

PRIVATE = (
    "box init", "calibration trials", "canonical form", "cross head", "digest", "distiller", "entry", "feature pair",
    "finalist", "full training", "gain", "gradient ratio", "job", "level weighting", "none", "planted tree",
    "prediction layout", "preset", "promotion", "proxy", "proxy fidelity", "race", "recipe", "recorded table", "reward",
    "run directory", "slot", "source", "space", "tap", "teacher weights", "term", "transform", "trial", "view",
    "virtual clock", "virtual loss", "vocabulary", "warm start",
)  # fmt: skip
"""AutoKD's own words, or common ones in a sense of its own."""

OPENINGS = re.compile(r"(Of|What|How|Who|Whose)\b(?! many)")
"""Beginnings of a meaning that name no thing (docs/style.md)."""


@functools.cache
def _tables() -> dict[str, list[tuple[str, str]]]:
    """First head of the glossary's tables -> (first cell, second cell) of all their rows."""
    tables: dict[str, list[tuple[str, str]]] = {}
    name, is_open = "", False
    for line in GLOSSARY.read_text(encoding="utf-8").splitlines():
        if not line.startswith("|"):
            is_open = False
            continue
        if line.startswith("|---"):
            continue
        first, second = (cell.strip() for cell in line.strip("|").split(" | ", 1))
        if is_open:
            tables[name].append((first, second))
        else:
            name, is_open = first, True
            tables.setdefault(name, [])
    return tables


@functools.cache
def _rows() -> frozenset[str]:
    """The words that the glossary explains, one by one where a row has two."""
    return frozenset(
        word.strip().lower()
        for cell, _ in _tables()["word"]
        for word in re.split(r"[;,]", re.sub(r"\(.*?\)", "", cell).strip("* "))
    )


@functools.cache
def _banned() -> dict[str, str]:
    """Word -> what to write in its place. A retired word with a remark in brackets has other senses that are in use."""
    retired = {word: now for word, now in _tables()["retired"] if "(" not in word}
    return {word: now for word, now in {**DIALECT, **retired}.items() if word not in _rows()}


@functools.cache
def _retired_names() -> dict[str, str]:
    """Names of schema 1, in backticks as texts write them -> those of today."""
    return {name: now for names, now in _tables()["schema 1"] for name in re.findall(r"`[a-z_]+`", names)}


@functools.cache
def _pattern() -> re.Pattern[str]:
    """Any banned word, capitalized or not, in the plural or not."""
    words = [f"[{word[0].upper()}{word[0]}]{word[1:]}".replace(" ", "[ -]") for word in _banned()]
    return re.compile(rf"(?<![\w-])({'|'.join(words)})s?(?![\w-])")


def _found(text: str) -> list[str]:
    """One line for each banned word of a text, with the words around it."""
    flat = re.sub(r"\s+", " ", text)  # words of a phrase may be on two lines
    found = []
    for match in _pattern().finditer(flat):
        around = flat[max(0, match.start() - 40) : match.end() + 40]
        found.append(f"{match[1]!r} (write: {_banned()[match[1].lower().replace('-', ' ')]}): ...{around}...")
    return found + [f"{name} (now: {now})" for name, now in _retired_names().items() if name in flat]


def _listed(problems: Iterable[str]) -> str:
    return "\n" + "\n".join(problems)


@functools.cache
def _help(command: str) -> str:
    arguments = [command, "--help"] if command else ["--help"]
    found = CliRunner().invoke(app, arguments, env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"})
    assert found.exit_code == 0, found.output
    return re.sub(r"[─│╭╮╰╯]", " ", found.output)


def _error_strings() -> Iterator[tuple[str, str]]:
    """(file and line, text) of each error that AutoKD raises or builds; what it fills in is left out."""
    for path in sorted((ROOT / "autokd").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and _name(node.func).endswith("Error"):
                words = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant)]
                text = " ".join(word for word in words if isinstance(word, str))
                yield f"{path.relative_to(ROOT)}:{node.lineno}", text


def _name(called: ast.expr) -> str:
    """``DataError`` of ``DataError(...)`` and of ``errors.DataError(...)``."""
    return getattr(called, "id", getattr(called, "attr", ""))


def test_the_glossary_has_words_and_each_one_once():
    words = [word for word, _ in _tables()["word"]]
    assert len(words) > 40
    assert len(set(words)) == len(words), "one row a word"
    assert not [word for word, meaning in _tables()["word"] if not meaning.strip("| ")]


def test_the_check_finds_a_banned_word_and_lets_the_others_be():
    assert len(_found("As heard,\nHandovers: so\nmany, hand-over.")) == 4
    assert not _found("the shepherd folded it; 10-fold; overheard")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_has_a_word_of_dialect(page):
    found = _found(page.read_text(encoding="utf-8"))
    assert not found, _listed(found)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command or "autokd")
def test_no_help_has_a_word_of_dialect(command):
    found = _found(_help(command))
    assert not found, _listed(found)


def test_no_error_has_a_word_of_dialect():
    found = [f"{where}: {problem}" for where, text in _error_strings() for problem in _found(text)]
    assert not found, _listed(found)


def test_every_private_word_in_use_has_a_row():
    texts = " ".join([*(page.read_text(encoding="utf-8") for page in PAGES), *map(_help, COMMANDS)]).lower()
    used = [word for word in PRIVATE if re.search(rf"\b{word}", re.sub(r"\s+", " ", texts))]
    assert len(used) > 20
    assert not [word for word in used if word not in _rows()], "give each a row in docs/glossary.md"


def test_every_meaning_of_a_key_names_its_thing():
    assert len(CONFIG_PAGES) == 1
    rows = [line.split(" | ") for line in CONFIG_PAGES[0].read_text(encoding="utf-8").splitlines() if "| `" in line]
    assert len(rows) > 50
    found = [f"{cells[0]} {cells[-1]}" for cells in rows if OPENINGS.match(cells[-1])]
    assert not found, _listed(found)


@pytest.mark.parametrize("command", COMMANDS[1:])
def test_every_meaning_of_an_option_names_its_thing(command):
    parameters = typer.main.get_command(app).commands[command].params  # type: ignore[attr-defined]
    helps = {parameter.name: getattr(parameter, "help", None) or "" for parameter in parameters}
    assert not {name: text for name, text in helps.items() if OPENINGS.match(text) or text.startswith("On which")}
