"""Lets mkdocstrings read the docstrings of AutoKD: a Griffe extension (``mkdocs.yml``).

A line of ``Args:`` may document parameters of one meaning together (``student, teacher: ...``), which Griffe does not
read. A field's text may link to a page of ``docs/``, relative to the generated reference and not to the module's page.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

_TOGETHER = re.compile(r"^( +)(\w+(?:, \w+)+): ", re.MULTILINE)
_PAGE = re.compile(r"\]\(([\w-]+\.md)")


class ReadableDocstrings(griffe.Extension):
    """Gives each parameter its own line, and links of docstrings their way to the pages."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite the docstring of an object, if it has one.

        Args:
            obj: a module, class, function or attribute.
            **kwargs: not used.
        """
        if obj.docstring is not None:
            text = _TOGETHER.sub(_one_by_one, obj.docstring.value)
            obj.docstring.value = _PAGE.sub(r"](../../\1", text)


def _one_by_one(found: re.Match[str]) -> str:
    *others, last = found[2].split(", ")
    return "".join(f"{found[1]}{name}: as ``{last}``.\n" for name in others) + f"{found[1]}{last}: "
