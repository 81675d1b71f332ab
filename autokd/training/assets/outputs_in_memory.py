"""Outputs that a worker keeps in memory: of each recipe, split and teacher, those of the seed at hand."""

from __future__ import annotations

from collections.abc import Callable, Collection

from autokd.jobs import RecipeName
from autokd.training.teacher.memory import TapsInMemory
from autokd.training.teacher.part import Part

Place = tuple[RecipeName, str, str]
"""Recipe, split, and digest of the teacher."""


class OutputsInMemory:
    """Taps in memory, of one part of the views a place; they live until another part or further taps are asked for."""

    def __init__(self) -> None:
        self._kept: dict[Place, tuple[str, TapsInMemory]] = {}

    def get(
        self, place: Place, part: Part, taps: Collection[str], make: Callable[[frozenset[str]], TapsInMemory]
    ) -> TapsInMemory:
        """Return the taps of a part.

        Args:
            place: recipe, split and teacher.
            part: the views.
            taps: names of the taps to keep at least.
            make: returns an empty object for given taps.
        """
        digest, kept = self._kept.get(place, ("", None))
        if kept is None or digest != part.digest or not kept.taps.issuperset(taps):
            self._kept.pop(place, None)  # before the next one is allocated
            kept = make(frozenset(taps))
            self._kept[place] = (part.digest, kept)
        return kept
