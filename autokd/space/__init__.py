"""The tree of choices that a search samples, read from YAML; torch-free.

``space`` holds the tree of terms of operators and the walk through it, ``parse`` reads YAML, ``locate`` finds the
decisions that lead to a given spec, ``count`` enumerates, ``restrict`` drops what a pair of detectors and its data
(``content``) cannot supply. ``part_space``, ``part_parse`` and ``part_locate`` are the same for sums of published parts
(``part_table``), the default.
"""

from autokd.space.chooser import Chooser
from autokd.space.content import DataContent
from autokd.space.count import count_specs, enumerate_forms, enumerate_paths, enumerate_specs
from autokd.space.domains import Choices, Domain, Range
from autokd.space.locate import with_offered_ratios
from autokd.space.parse import DEFAULT_SPACE, space_from_document
from autokd.space.part_locate import decisions_of, decisions_of_sum, nearest_summand, spec_of, summands_of, validate
from autokd.space.part_parse import DEFAULT_PARTS, default_parts, read_space
from autokd.space.part_space import (
    ADD,
    FREE,
    PUBLISHED,
    STOP,
    AnySpace,
    Part,
    PartSpace,
    Summand,
    count_distillers,
    size_words,
)
from autokd.space.restrict import restrict_to_counts, restrict_to_taps
from autokd.space.slots import Option, Slot
from autokd.space.space import Space, levels_label
from autokd.space.supply import lacks_of

__all__ = [
    "ADD",
    "AnySpace",
    "Chooser",
    "Choices",
    "DEFAULT_PARTS",
    "DEFAULT_SPACE",
    "DataContent",
    "Domain",
    "FREE",
    "Option",
    "PUBLISHED",
    "Part",
    "PartSpace",
    "Range",
    "STOP",
    "Slot",
    "Space",
    "Summand",
    "count_distillers",
    "count_specs",
    "decisions_of",
    "decisions_of_sum",
    "default_parts",
    "enumerate_forms",
    "enumerate_paths",
    "enumerate_specs",
    "lacks_of",
    "levels_label",
    "nearest_summand",
    "read_space",
    "restrict_to_counts",
    "restrict_to_taps",
    "size_words",
    "space_from_document",
    "spec_of",
    "summands_of",
    "validate",
    "with_offered_ratios",
]
