"""YAML read into documents, and written.

A document is data only: tags that would construct objects, and keys given twice, are errors. Size, depth and the number
of values are bounded, since a few hundred bytes of aliases can stand for more values than a machine holds.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import CollectionEndEvent, CollectionStartEvent
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from autokd.documents.document import Document, Location
from autokd.errors import ConfigError

MAX_BYTES = 2**19
"""Bytes of a document. The largest files of AutoKD have a tenth of it."""
MAX_DEPTH = 50
"""Lists and mappings within each other."""
LARGEST_INTEGER = 2**63 - 1
"""Largest whole number of a document: arrays and databases hold no larger ones."""
MAX_VALUES = 100_000
"""Values of a document, those that an alias repeats counted each time."""

_CORE = "tag:yaml.org,2002:"
_PLAIN_TAGS = {f"{_CORE}{kind}" for kind in ("str", "int", "float", "bool", "null", "map", "seq")}
_MERGE = f"{_CORE}merge"


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
        _check_depth(yaml, text, source)
        node = yaml.compose(text)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise ConfigError(f"{source}{line}: this is not valid YAML: {problem}.") from None
    if node is None:
        return Document({}, source, {(): 1})
    reader = _Reader(source, yaml)
    return Document(reader.plain(node, ()), source, reader.lines)


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
        text, source = path_or_text.encode(errors="surrogatepass"), "<text>"
    else:
        path = Path(path_or_text)
        source = str(path)
        try:
            if path.is_dir():
                raise ConfigError(f"{path}: this is a directory; name the YAML file itself.")
            with path.open("rb") as file:  # one byte more than is allowed: a pipe or a device has no size to look at
                text = file.read(MAX_BYTES + 1)
        except FileNotFoundError:
            raise ConfigError(f"{_shortened(source)}: no such file. Check the path, seen from {Path.cwd()}.") from None
        except (OSError, ValueError) as error:
            raise ConfigError(f"{_shortened(source)}: cannot be read: {_shortened(str(error))}.") from None
    if len(text) > MAX_BYTES:
        raise ConfigError(
            f"{source}: larger than {MAX_BYTES // 1024} KiB, and so no file of AutoKD. Name another file."
        )
    try:
        return text.decode("utf-8"), source
    except UnicodeDecodeError as error:
        raise ConfigError(f"{source}: cannot be read as UTF-8 text: {error}.") from None


def _shortened(text: str) -> str:
    return text if len(text) <= 300 else f"{text[:300]}..."


def _check_depth(yaml: YAML, text: str, source: str) -> None:
    """Refuse lists within lists without end: composing them recurses. A list of events does not."""
    depth = 0
    for event in yaml.parse(text):
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise ConfigError(f"{source}:{event.start_mark.line + 1}: {_TOO_DEEP}")


_TOO_DEEP = f"lists and mappings lie more than {MAX_DEPTH} deep within each other. Flatten them."


class _Reader:
    """Turns nodes into plain data, and keeps the line of each."""

    def __init__(self, source: str, yaml: YAML) -> None:
        self.lines: dict[Location, int] = {}
        self._source = source
        self._yaml = yaml
        self._num_values = 0

    def plain(self, node: Node, location: Location) -> Any:
        line = node.start_mark.line + 1
        self.lines.setdefault(location, line)
        self._count(node)
        if len(location) > MAX_DEPTH:  # deeper than the text is: an alias of itself
            raise ConfigError(f"{self._source}:{line}: {_TOO_DEEP}")
        if isinstance(node, ScalarNode):
            return self._scalar(node)
        self._check_tag(node)
        if isinstance(node, SequenceNode):
            return [self.plain(item, (*location, i)) for i, item in enumerate(node.value)]
        assert isinstance(node, MappingNode)
        return self._mapping(node, location)

    def _mapping(self, node: MappingNode, location: Location) -> dict[Any, Any]:
        mapping: dict[Any, Any] = {}
        for key_node, value_node, is_merged in self._pairs(node, 0):
            key_line = key_node.start_mark.line + 1
            if not isinstance(key_node, ScalarNode):
                raise self._error(key_line, "a key must be a plain word")
            key = self._scalar(key_node)
            # YAML reads the keys `null` and `3` as None and 3. They are words here: slots may be called anything, and
            # locations and errors name keys by their text.
            key = key_node.value if not isinstance(key, str) else key
            if key in mapping:
                if is_merged:
                    continue
                raise self._error(key_line, f"the key {key!r} appears twice. Keep one of the two")
            self.lines[(*location, key)] = key_line
            mapping[key] = self.plain(value_node, (*location, key))
        return mapping

    def _pairs(self, node: MappingNode, depth: int) -> Iterator[tuple[Node, Node, bool]]:
        """Yield key, value and whether they come by ``<<``: the mapping's own first, then those that it merges."""
        merged: list[Node] = []
        for key_node, value_node in node.value:
            self._count(key_node)
            if str(key_node.tag) == _MERGE:
                merged += value_node.value if isinstance(value_node, SequenceNode) else [value_node]
            else:
                yield key_node, value_node, depth > 0
        for other in merged:
            line = other.start_mark.line + 1
            if not isinstance(other, MappingNode):
                raise self._error(line, "'<<' merges mappings alone. Give an alias of one")
            if depth > MAX_DEPTH:
                raise ConfigError(f"{self._source}:{line}: {_TOO_DEEP}")
            yield from self._pairs(other, depth + 1)

    def _scalar(self, node: ScalarNode) -> Any:
        self._check_tag(node)
        try:
            value = self._yaml.constructor.construct_object(node)
            if isinstance(value, int) and abs(value) > LARGEST_INTEGER:
                raise OverflowError
            return value
        except (ValueError, KeyError, OverflowError, YAMLError):
            kind = str(node.tag).removeprefix(_CORE)
            raise self._error(
                node.start_mark.line + 1, f"{_shortened(node.value)!r} cannot be read as {kind}. Correct it"
            ) from None

    def _count(self, node: Node) -> None:
        self._num_values += 1
        if self._num_values > MAX_VALUES:
            raise self._error(
                node.start_mark.line + 1, f"more than {MAX_VALUES} values, with those of aliases. Write fewer"
            )

    def _check_tag(self, node: Node) -> None:
        """Refuse tags that ask for more than data, such as !!python/object, which asks for code to be run."""
        tag, line = str(node.tag), node.start_mark.line + 1
        if tag == f"{_CORE}timestamp":
            raise self._error(line, f"{node.value!r} is read as a date. Put it into quotes, if it is a name")
        if tag not in _PLAIN_TAGS:
            raise self._error(line, f"the tag {tag!r} is refused: a document holds data only. Remove the tag")

    def _error(self, line: int, message: str) -> ConfigError:
        return ConfigError(f"{self._source}:{line}: {message}.")
