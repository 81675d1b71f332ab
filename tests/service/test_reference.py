"""The reference of the REST interface is made from its OpenAPI document, and leaves nothing out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("fastapi")

from autokd.service.guard import Refusal
from autokd.service.reference import reference

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "rest.md"


def test_the_reference_in_docs_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference(), "run: python -m autokd.service.reference > docs/rest.md"


def test_every_route_parameter_and_field_is_explained() -> None:
    text = PAGE.read_text(encoding="utf-8")
    routes = re.findall(r'@router\.(\w+)\("([^"]+)"', (ROOT / "autokd" / "service" / "rest.py").read_text())
    assert len(routes) >= 14
    assert all(f"### `{method.upper()} /api/v1{path}`" in text for method, path in routes)
    rows = re.findall(r"^\| `\w+` \|.*\|([^|]*)\|$", text, re.MULTILINE)
    assert rows
    assert all(meaning.strip() for meaning in rows), "a parameter or a field has no description"


def test_every_status_of_a_refusal_is_in_the_table_of_errors() -> None:
    text = PAGE.read_text(encoding="utf-8").partition("## Errors")[2]
    sources = "".join(path.read_text() for path in (ROOT / "autokd" / "service").glob("*.py"))
    refused = set(re.findall(rf"{Refusal.__name__}\((\d+)|HTTPException\((\d+)", sources))
    statuses = {number for pair in refused for number in pair if number}
    assert statuses
    assert all(f"| {number} |" in text for number in statuses), statuses
