"""The tree of choices, read from YAML; torch-free.

``model`` holds the space and the one function that walks it; ``text`` reads YAML; ``locate`` finds a given
spec in the tree, and says why where it is not there.
"""

from autokd.space.domains import Choices, Domain, Range
from autokd.space.locate import decisions_of, validate
from autokd.space.model import Chooser, Option, Slot, Space
from autokd.space.supply import lacks_of
from autokd.space.text import DEFAULT_SPACE, space_from_document

__all__ = [
    "DEFAULT_SPACE",
    "Chooser",
    "Choices",
    "Domain",
    "Option",
    "Range",
    "Slot",
    "Space",
    "decisions_of",
    "lacks_of",
    "space_from_document",
    "validate",
]
