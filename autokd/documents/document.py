"""Plain data with the line of each value, so that an error can name it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from autokd.errors import ConfigError

Location = tuple[str | int, ...]
"""A path of keys and indices, e.g. ("terms", 1, "distance")."""


@dataclass(frozen=True)
class Document:
    """Plain data with the line of every key and item.

    Args:
        data: a tree of dict, list, str, int, float, bool and None.
        source: path of the file, or another name for errors.
        lines: location -> line, counted from 1; empty for data that was no text.
        prefix: location of ``data`` in the whole file, if it is a part of it.
    """

    data: Any
    source: str = "<data>"
    lines: dict[Location, int] = field(default_factory=dict)
    prefix: Location = ()

    def where(self, location: Location) -> str:
        """Return a place for an error, such as "file.yaml:17: terms[1].distance".

        Args:
            location: keys and indices below this document; one that it lacks has the line of what would hold it.
        """
        for length in range(len(location), -1, -1):
            line = self.lines.get(location[:length])
            if line is not None:
                break
        prefix = f"{self.source}:{line}" if line is not None else self.source
        name = format_location((*self.prefix, *location))
        return f"{prefix}: {name}" if name else prefix

    def error(
        self, location: Sequence[str | int], message: str, kind: Callable[[str], ConfigError] = ConfigError
    ) -> ConfigError:
        """Return (not raise) an error.

        Args:
            location: the place, which the message begins with.
            message: what was found there, what is allowed, and the remedy.
            kind: class of the error.
        """
        return kind(f"{self.where(tuple(location))}: {message}")

    def at(self, *location: str | int) -> Document:
        """Return the part of the document below a place; its errors name places of the whole file.

        Args:
            location: keys and indices, each an argument.

        Raises:
            KeyError, IndexError: if the document has no such part.
        """
        data = self.data
        for key in location:
            data = data[key]
        depth = len(location)
        lines = {path[depth:]: line for path, line in self.lines.items() if path[:depth] == location}
        return Document(data, self.source, lines, (*self.prefix, *location))


def format_location(location: Sequence[str | int]) -> str:
    """Return the text of a place, such as "terms[1].distance" for ("terms", 1, "distance").

    Args:
        location: keys and indices.
    """
    text = ""
    for key in location:
        text += f"[{key}]" if isinstance(key, int) else (f".{key}" if text else key)
    return text
