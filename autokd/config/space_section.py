"""The section ``space``: read into a space once, written back as the document that it was read from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import PlainSerializer, PlainValidator

from autokd.documents import Document
from autokd.space import AnySpace, PartSpace, Space, default_parts, read_space


def default_space() -> AnySpace:
    """Return the space of a file without a section ``space``: sums of parts."""
    return default_parts()


def _read(found: Any) -> AnySpace:
    if isinstance(found, (Space, PartSpace)):
        return found
    if isinstance(found, Mapping):
        return read_space(Document(dict(found), "space"))
    raise ValueError(f"found {found!r}; a space is a mapping")


def _document_of(space: AnySpace) -> dict[str, Any]:
    if space.document is None:
        raise ValueError("only a space that was read from a document can be written; this one is a part of another")
    return dict(space.document)


SpaceSection = Annotated[AnySpace, PlainValidator(_read), PlainSerializer(_document_of)]
"""A space of either kind; plain data is read into one, with SpaceError or SpecError for what is wrong with it."""
