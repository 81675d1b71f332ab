"""The documentation of operators is made from the tables."""

from __future__ import annotations

from pathlib import Path

from autokd.spec.reference import reference

PAGE = Path(__file__).parents[2] / "docs" / "operators.md"


def test_the_reference_in_docs_is_up_to_date():
    assert PAGE.read_text() == reference(), "run: python -m autokd.spec.reference > docs/operators.md"
