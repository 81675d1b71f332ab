"""YAML documents with the line of each value."""

from autokd.documents.document import Document, Location, format_location
from autokd.documents.reading import MAX_BYTES, MAX_DEPTH, MAX_VALUES, dump_yaml, load_document

__all__ = [
    "MAX_BYTES",
    "MAX_DEPTH",
    "MAX_VALUES",
    "Document",
    "Location",
    "dump_yaml",
    "format_location",
    "load_document",
]
