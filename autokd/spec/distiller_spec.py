"""A whole distiller as data: a sum of terms with a canonical form and a digest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from autokd.documents import Document, dump_yaml, load_document
from autokd.errors import SpecError
from autokd.files import text_digest
from autokd.spec.terms import TermSpec, rounded
from autokd.spec.text import distiller_from_document, distiller_to_data


@dataclass(frozen=True)
class DistillerSpec:
    """A distiller: a sum of terms.

    Args:
        terms: one or more terms.
        name, paper, family, release: labels; they take no part in equality, hash and digest. ``family``: the family of
            detectors for which the weights were published, or "any"; ``release``: where, if not in the paper.

    Raises:
        SpecError: if there is no term.
    """

    terms: tuple[TermSpec, ...]
    name: str = ""
    paper: str = ""
    family: str = ""
    release: str = ""

    def __post_init__(self) -> None:
        if not self.terms:
            raise SpecError("a distiller has at least one term; without distillation there is no distiller.")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DistillerSpec) and self.terms == other.terms

    def __hash__(self) -> int:
        return hash(self.terms)

    def canonical(self) -> DistillerSpec:
        """Return the one representative of all specs with this loss: terms canonical, merged and sorted.

        Terms that are equal but for the value of their weights merge, and the values are added.

        Raises:
            SpecError: naming the term, if a term is ill-typed.
        """
        merged: dict[TermSpec, float] = {}
        for i, term in enumerate(self.terms):
            try:
                exact = term.canonical()
            except SpecError as error:
                raise SpecError(f"terms[{i}].{error}") from None
            unweighted = replace(exact, weight=replace(exact.weight, value=0.5))  # any value that all kinds allow
            merged[unweighted] = merged.get(unweighted, 0.0) + exact.weight.value
        terms = [replace(term, weight=replace(term.weight, value=rounded(v))) for term, v in merged.items()]
        return replace(self, terms=tuple(sorted(terms)))

    def with_gradient_ratio(self, ratio: float) -> DistillerSpec:
        """Return the same form with relative weights.

        Args:
            ratio: gradient norm of the whole distiller over the task loss's; each term gets an equal part of it.
        """
        share = ratio / len(self.terms)
        terms = tuple(replace(term, weight=replace(term.weight, kind="relative", value=share)) for term in self.terms)
        return replace(self, terms=terms)

    @cached_property
    def digest(self) -> str:
        """16 hexadecimal digits, equal for equal losses, stable between machines and versions of Python.

        A change of this scheme orphans every database and recorded table: they find their rows by it.
        """
        terms = self.canonical().to_data()["terms"]
        text = json.dumps(terms, sort_keys=True, separators=(",", ":"))
        return text_digest(text)

    def to_data(self) -> dict[str, Any]:
        """Return the distiller as plain data, as its YAML file holds it."""
        return distiller_to_data(self.terms, self.name, self.paper, self.family, self.release)

    def to_yaml(self) -> str:
        """Return the text of the distiller's YAML file."""
        return dump_yaml(self.to_data())

    @classmethod
    def from_yaml(cls, path_or_text: str | Path, family: str | None = None) -> DistillerSpec:
        """Read a distiller from a YAML file or from YAML text.

        Args:
            path_or_text: a path; or YAML, which is a string with a line break or with ": " in it.
            family: the family of detectors that the distiller is for, which chooses among its ``families``; None: the
                first of them.

        Returns:
            The distiller as written, not in canonical form.

        Raises:
            ConfigError: with file and line, if the file is absent or no YAML.
            SpecError: with file and line, if it is no distiller.
        """
        return cls(*distiller_from_document(load_document(path_or_text), family))

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> DistillerSpec:
        """Read a distiller from plain data.

        Args:
            data: a mapping as ``to_data`` returns it.

        Returns:
            The distiller as written, not in canonical form.

        Raises:
            SpecError: naming the place in the data, if it is no distiller.
        """
        return cls(*distiller_from_document(Document(dict(data))))
