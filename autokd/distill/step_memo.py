"""Values that several terms need, computed once in a step."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

Value = TypeVar("Value")
Observer = Callable[[Hashable], None]


class StepMemo:
    """Values of one forward of a distiller, by keys that say what each is.

    A memo lives as long as the forward that made it (and the graph that holds its values), so no value is ever read in
    another step. A key holds names, numbers, modules or a feature pair's ``maps_key``, never the id of a tensor: an id
    may name another tensor once the first is freed.
    """

    def __init__(self, observer: Observer | None = None) -> None:
        """Begin empty.

        Args:
            observer: called with the key of each value when it is computed, not when it is read again.
        """
        self._observer = observer
        self._values: dict[Hashable, Any] = {}

    def get(self, key: Hashable, compute: Callable[[], Value]) -> Value:
        """Return the value of ``key``, which is ``compute()`` at the first call."""
        if key not in self._values:
            if self._observer is not None:
                self._observer(key)
            self._values[key] = compute()
        value: Value = self._values[key]
        return value
