"""The documentation of operators is made from the tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from autokd.spec.reference import reference
from autokd.spec.tables import distances, sources, transforms

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "operators.md"


def test_the_reference_in_docs_is_up_to_date():
    assert PAGE.read_text() == reference(), "run: python -m autokd.spec.reference > docs/operators.md"


@pytest.mark.parametrize("kind", [sources, transforms, distances], ids=lambda kind: kind.__name__.rpartition(".")[2])
def test_a_table_and_the_module_of_its_classes_have_one_name(kind):
    folder = kind.__name__.rpartition(".")[2]
    for family in kind.FAMILIES:
        module = f"autokd.distill.{folder}.{family.__name__.rpartition('.')[2]}"
        assert {row.implementation.partition(":")[0] for row in family.ROWS} == {module}
    modules = {path.stem for path in (ROOT / "autokd" / "distill" / folder).glob("*.py")} - {"__init__"}
    assert modules == {family.__name__.rpartition(".")[2] for family in kind.FAMILIES}
