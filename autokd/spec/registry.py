"""The registry of operators: AutoKD's rows and those of installed packages, one table a kind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata

from autokd.errors import SpecError, one_of
from autokd.spec.operator import Kind, Operator

ENTRY_POINTS = "autokd.operators"
"""The entry point group under which a package offers its rows."""


class OperatorRegistry:
    """Every operator that a spec may name.

    The rows of installed packages (entry points of the group ``autokd.operators``) are added once, before the first
    read of any table, whichever way it is read: so no reader sees a table grow. They are not loaded while
    ``autokd.spec`` is imported, because the module behind an entry point imports ``autokd.spec`` itself: whoever
    imports that module first would have it loaded again before its own rows exist.
    """

    def __init__(self, rows: Iterable[Operator]) -> None:
        """Begin with AutoKD's own rows; their order is the order of options in a space.

        Args:
            rows: rows of any kind; no two rows of one kind have one name.

        Raises:
            SpecError: if two rows of one kind have one name.
        """
        self._rows: dict[Kind, dict[str, Operator]] = {"source": {}, "transform": {}, "distance": {}}
        self._has_entry_points = False
        for row in rows:
            self._add(row, "AutoKD's own vocabulary")

    def table(self, kind: Kind) -> Mapping[str, Operator]:
        """Return a read-only view, name -> row, that always shows what is registered."""
        return _Table(self, kind)

    def rows(self, kind: Kind) -> dict[str, Operator]:
        """Return the rows of a kind by name, those of installed packages last."""
        self._load_entry_points()
        return self._rows[kind]

    def find(self, kind: Kind, name: str) -> Operator:
        """Return the row ``name`` of a kind.

        Raises:
            SpecError: naming the nearest name, if there is no such row.
        """
        rows = self.rows(kind)
        if name not in rows:
            raise SpecError(one_of(name, rows, noun=kind))
        return rows[name]

    @contextmanager
    def registered(self, *rows: Operator) -> Iterator[None]:
        """Register rows for the duration of a ``with`` block; a row replaces one of its own kind and name.

        For tests, and for the conformance suite over the rows of a package that is not installed.
        """
        self._load_entry_points()
        before = {kind: dict(table) for kind, table in self._rows.items()}
        for row in rows:
            self._rows[row.kind][row.name] = row
        try:
            yield
        finally:
            self._rows = before

    def _load_entry_points(self) -> None:
        if self._has_entry_points:
            return
        # Set first: a module behind an entry point may itself read a table.
        self._has_entry_points = True
        for entry_point in metadata.entry_points(group=ENTRY_POINTS):
            for row in entry_point.load():
                self._add(row, f"the package behind the entry point {entry_point.name!r}")

    def _add(self, row: Operator, owner: str) -> None:
        table = self._rows[row.kind]
        if row.name in table:
            raise SpecError(f"{owner} offers a {row.kind} {row.name!r}, which exists already. Rename it there.")
        table[row.name] = row


class _Table(Mapping[str, Operator]):
    """The rows of one kind, read from the registry at each access."""

    def __init__(self, registry: OperatorRegistry, kind: Kind) -> None:
        self._registry, self._kind = registry, kind

    def __getitem__(self, name: str) -> Operator:
        return self._registry.rows(self._kind)[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._registry.rows(self._kind))

    def __len__(self) -> int:
        return len(self._registry.rows(self._kind))


__all__ = ["ENTRY_POINTS", "OperatorRegistry"]
