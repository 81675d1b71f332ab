"""YAML documents with the line of each value, so that an error can name it.

A document is data only: tags that would construct objects, and keys given twice, are errors.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from autokd.errors import ConfigError

Location = tuple[str | int, ...]
"""A path of keys and indices, e.g. ("terms", 1, "distance")."""

_PLAIN_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "map", "seq")}


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


def load_document(path_or_text: str | Path) -> Document:
    """Read YAML.

    Args:
        path_or_text: a path; or YAML, which is a string with a line break or with ": " in it.

    Returns:
        The document; an empty file is an empty dict.

    Raises:
        ConfigError: with file and line, for a missing file, a syntax error, a tag or a repeated key.
    """
    text, source = _read(path_or_text)
    # Nodes are composed and turned into data here, since only they know lines, tags and repeated keys.
    yaml = YAML(typ="safe", pure=True)
    try:
        node = yaml.compose(text)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise ConfigError(f"{source}{line}: this is not valid YAML: {problem}.") from None
    if node is None:
        return Document({}, source, {(): 1})
    lines: dict[Location, int] = {}
    data = _plain(node, (), lines, source, yaml)
    return Document(data, source, lines)


def dump_yaml(data: Any) -> str:
    """Return plain data as YAML, with keys in their order and the innermost lists and dicts on one line.

    Args:
        data: a tree of dict, list, str, int, float, bool and None.
    """
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = None
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.width = 110
    stream = io.StringIO()
    yaml.dump(data, stream)
    return stream.getvalue()


def _read(path_or_text: str | Path) -> tuple[str, str]:
    if isinstance(path_or_text, str) and ("\n" in path_or_text or ": " in path_or_text):
        return path_or_text, "<text>"
    path = Path(path_or_text)
    if path.is_dir():
        raise ConfigError(f"{path}: this is a directory; name the YAML file itself.")
    try:
        return path.read_text(encoding="utf-8"), str(path)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file. Check the path, seen from {Path.cwd()}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as UTF-8 text: {error}.") from None


def _plain(node: Node, location: Location, lines: dict[Location, int], source: str, yaml: YAML) -> Any:
    line = node.start_mark.line + 1
    lines.setdefault(location, line)
    # Any other tag, such as !!python/object, asks for code to be run; `<<` alone has the tag "merge", as a key.
    if str(node.tag) not in _PLAIN_TAGS and "merge" not in str(node.tag):
        raise ConfigError(
            f"{source}:{line}: the tag {str(node.tag)!r} is refused: a document holds data only. Remove the tag."
        )
    if isinstance(node, ScalarNode):
        return yaml.constructor.construct_object(node)
    if isinstance(node, SequenceNode):
        return [_plain(item, (*location, i), lines, source, yaml) for i, item in enumerate(node.value)]
    assert isinstance(node, MappingNode)
    mapping: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key_line = key_node.start_mark.line + 1
        if not isinstance(key_node, ScalarNode):
            raise ConfigError(f"{source}:{key_line}: a key must be a plain word.")
        key = yaml.constructor.construct_object(key_node)
        # YAML reads the keys `null` and `3` as None and 3. They are words here: slots may be called anything, and
        # locations and errors name keys by their text.
        key = key_node.value if not isinstance(key, str) else key
        if key in mapping:
            raise ConfigError(f"{source}:{key_line}: the key {key!r} appears twice. Keep one of the two.")
        lines[(*location, key)] = key_line
        mapping[key] = _plain(value_node, (*location, key), lines, source, yaml)
    return mapping
