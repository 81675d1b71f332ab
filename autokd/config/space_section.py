"""The section ``space``: read into a ``Space`` once, written back as the document that it was read from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import PlainSerializer, PlainValidator

from autokd.documents import Document
from autokd.space import Space, space_from_document


def default_space() -> Space:
    """Return the space of a file without a section ``space``."""
    return space_from_document(Document({}, "default space"))


def _read(found: Any) -> Space:
    if isinstance(found, Space):
        return found
    if isinstance(found, Mapping):
        return space_from_document(Document(dict(found), "space"))
    raise ValueError(f"found {found!r}; a space is a mapping")


def _document_of(space: Space) -> dict[str, Any]:
    if space.document is None:
        raise ValueError("only a space that was read from a document can be written; this one is a part of another")
    return dict(space.document)


SpaceSection = Annotated[Space, PlainValidator(_read), PlainSerializer(_document_of)]
"""A ``Space``; plain data is read into one, with SpaceError or SpecError for what is wrong with it."""
