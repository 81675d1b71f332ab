"""The index of the recorded experiments, made from the head of each one's README.

``python -m autokd.benchmark.index > experiments/README.md`` at the repository's root; a test keeps the page so.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields
from pathlib import Path

from autokd.benchmark.markdown import markdown_table
from autokd.documents import load_document
from autokd.errors import BenchmarkError

FOLDER = Path("experiments")
FENCE = "---\n"

_INTRODUCTION = """\
# Experiments

*Made by `python -m autokd.benchmark.index > experiments/README.md`; a test keeps it so. Do not edit.*

Each folder asks one question, and holds the command, the data and the answer.

## Rules
- **Imports go one way.** Scripts import `autokd`; `autokd` imports no script, and no script imports one of another
  folder. What two experiments share lives in `autokd.benchmark`: claims and trainings (`recording`), searches on a
  recorded table (`simulation`), tables in a README (`markdown`).
- **Every number comes from a recorded run**, with command, commit, seeds and machine beside it. Recorded figures are
  not edited; to check one, run its command again. Settings are chosen on val and reported on test.
- **Every README begins with the same six fields**: question, answer, command, commit, owner (the package whose change
  makes the figures stale), and the condition under which the folder may be removed.
- **Large files stay out.** `python experiments/record_run.py RUN FOLDER` copies results, configuration, distiller and
  trials of a run; `autokd report RUN` writes its `report.html` again.

"""


@dataclass(frozen=True)
class Head:
    """The fields at the head of an experiment's README."""

    question: str
    answer: str
    command: str
    """Command at the repository's root that the answer comes from."""
    commit: str
    """Commit of AutoKD at which it ran; the README and its data name further ones."""
    owner: str
    """Package of AutoKD whose change makes the figures stale."""
    removable_when: str
    """Condition under which the folder may be removed."""


def read_head(readme: Path) -> Head:
    """Read the head of a README: YAML between two lines of three hyphens.

    Args:
        readme: the file.

    Raises:
        BenchmarkError: if there is no head, or it lacks a field, has one of no text, or one too many.
    """
    opening, fence, rest = readme.read_text(encoding="utf-8").partition(FENCE)
    text, closing, _ = rest.partition(FENCE)
    names = [field.name for field in fields(Head)]
    if opening or not fence or not closing:
        raise BenchmarkError(
            f"{readme}: no head. The file begins with a line '---', the fields {', '.join(names)}, and '---' again."
        )
    data = load_document(text).data
    if sorted(data) != sorted(names):
        raise BenchmarkError(f"{readme}: its head has the fields {', '.join(data)}; they are {', '.join(names)}.")
    if empty := [name for name in names if not isinstance(data[name], str) or not data[name].strip()]:
        raise BenchmarkError(f"{readme}: {', '.join(empty)} is no text. Quote a commit that looks like a number.")
    return Head(**{name: data[name].strip() for name in names})


def index_page(folder: Path) -> str:
    """Return the index of all experiments in a folder.

    Raises:
        BenchmarkError: if a README has no proper head.
    """
    heads = {path.parent.name: read_head(path) for path in sorted(folder.glob("*/README.md"))}
    answers = [(_link(name), head.question, head.answer) for name, head in heads.items()]
    origins = [
        (_link(name), f"`{head.command}`", head.commit, f"`{head.owner}`", head.removable_when)
        for name, head in heads.items()
    ]
    lines = [
        "## Answers",
        *markdown_table(("experiment", "question", "answer"), answers),
        "",
        "## Origin and owner",
        *markdown_table(("experiment", "command", "commit", "owner", "may be removed when"), origins),
    ]
    return _INTRODUCTION + "\n".join(lines) + "\n"


def _link(name: str) -> str:
    return f"[{name}]({name}/README.md)"


if __name__ == "__main__":
    sys.stdout.write(index_page(FOLDER))
