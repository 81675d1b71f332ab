"""Config files that come with the package, by their names: ``autokd search quickstart``."""

from __future__ import annotations

import re
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "examples"
"""Folder of the files; in a checkout a link to ``search_spaces/``."""


def example_names() -> tuple[str, ...]:
    """Return the names of the config files that need no data of the user's."""
    return tuple(path.stem for path in sorted(FOLDER.glob("*.yaml")) if "format: shapes" in path.read_text("utf-8"))


def or_example(path_or_text: str | Path) -> str | Path:
    """Return the packaged file if a bare name of one is given and no file has that name; else the argument.

    Args:
        path_or_text: path of a config file, its text, or the name of a packaged one.
    """
    name = str(path_or_text)
    if re.fullmatch(r"[a-z_]+", name) and name in example_names() and not Path(name).exists():
        return FOLDER / f"{name}.yaml"
    return path_or_text
