"""The config file of ``autokd init``: YAML with a comment beside every choice."""

from __future__ import annotations

from typing import Any

from autokd.documents import dump_yaml
from autokd.starter.choices import BATCH_SIZE, Choices, Setting

_HEAD = """\
# Made by `autokd init`. docs/config-file.md lists every key and default; these commands read this file:
#   autokd data FILE     what is read of the data        autokd space FILE     the distillers that are searched
#   autokd plan FILE     what it will cost               autokd search FILE    search, and train the winner in full
"""


def config_text(choices: Choices) -> str:
    """Return the text of a config file.

    Args:
        choices: the settings.
    """
    data = {**choices.data, "image_size_px": choices.size.value}
    lines = [_HEAD, f"name: {_flow(choices.name)}", "", "data:"]
    for key, value in data.items():
        lines.append(_line(key, value, choices.size.reason if key == "image_size_px" else ""))
    lines += ["", f"teacher:  # {choices.teacher.reason}", *_section(choices.teacher)]
    if choices.teacher_epochs is not None:
        recipe = {"epochs": choices.teacher_epochs.value, "batch_size": BATCH_SIZE}
        lines.append(_line("train", recipe, choices.teacher_epochs.reason))
    lines += ["", f"student:  # {choices.student.reason}", *_section(choices.student), ""]
    lines += ["search:", *(_line(key, each.value, each.reason) for key, each in choices.search.items()), ""]
    if "trials" in choices.search:  # trials of a budget are stages of full trainings, and have no section of their own
        lines += ["proxy:  # the short trainings by which distillers are compared; what is left out is as in full"]
        lines += [_line("batch_size", BATCH_SIZE, "docs/proxy.md: what makes a proxy cheaper"), ""]
    lines += ["full:  # the trainings that count: the winner, and what it is compared with"]
    lines += [_line("epochs", choices.epochs.value, choices.epochs.reason)]
    lines += [_line("batch_size", BATCH_SIZE, ""), _line("seeds", choices.seeds.value, choices.seeds.reason)]
    lines += ["", "runtime:", _line("workers", choices.workers.value, choices.workers.reason)]
    return "\n".join(lines) + "\n"


def _section(setting: Setting) -> list[str]:
    return [_line(key, value, "") for key, value in setting.value.items()]


def _line(key: str, value: Any, comment: str) -> str:
    text = f"  {key}: {_flow(value)}"
    return f"{text}  # {comment}" if comment else text


def _flow(value: Any) -> str:
    """Return a value as YAML on one line, quoted where YAML would read it otherwise."""
    text = dump_yaml([value]).strip()
    text = " ".join(text.split())
    return text.removeprefix("- ").strip() if text.startswith("- ") else text.removeprefix("[").removesuffix("]")
