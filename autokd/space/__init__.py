"""The tree of choices that a search samples, read from YAML; torch-free.

``space`` holds the tree and the walk through it, ``parse`` reads YAML, ``locate`` finds the decisions that lead to a
given spec, ``count`` enumerates, ``restrict`` drops what a pair of detectors and its data (``content``) cannot supply.
"""

from autokd.space.content import DataContent
from autokd.space.count import count_specs, enumerate_forms, enumerate_paths, enumerate_specs
from autokd.space.domains import Choices, Domain, Range
from autokd.space.locate import decisions_of, validate, with_offered_ratios
from autokd.space.parse import DEFAULT_SPACE, space_from_document
from autokd.space.restrict import restrict_to_counts, restrict_to_taps
from autokd.space.slots import Option, Slot
from autokd.space.space import Chooser, Space, levels_label
from autokd.space.supply import lacks_of

__all__ = [
    "DEFAULT_SPACE",
    "Chooser",
    "Choices",
    "DataContent",
    "Domain",
    "Option",
    "Range",
    "Slot",
    "Space",
    "count_specs",
    "decisions_of",
    "enumerate_forms",
    "enumerate_paths",
    "enumerate_specs",
    "lacks_of",
    "levels_label",
    "restrict_to_counts",
    "restrict_to_taps",
    "space_from_document",
    "validate",
    "with_offered_ratios",
]
