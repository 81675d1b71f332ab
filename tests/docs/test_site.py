"""The documentation site is built strictly: no link leads nowhere, and the generated references are in it."""

from __future__ import annotations

import html
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "WARNING" not in done.stderr, done.stderr[-3000:]
    return folder


@pytest.mark.slow
def test_every_page_of_the_documentation_is_on_the_site(site: Path) -> None:
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")}
    assert pages <= {path.parent.name for path in site.rglob("index.html")}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("reference/cli", "autokd search"),
        ("reference/api/autokd", "build_distiller"),
        ("rest", "GET /api/v1/searches"),
        ("config-file", "gradient_ratio"),
        ("experiments/pairs", "Each pair"),
    ],
)
def test_a_reference_is_on_the_site(site: Path, page: str, words: str) -> None:
    assert words in html.unescape((site / page / "index.html").read_text(encoding="utf-8"))


@pytest.mark.slow
def test_formulas_of_operators_are_in_mathematical_type(site: Path) -> None:
    text = (site / "operators" / "index.html").read_text(encoding="utf-8")
    rows = text.count("<tr>") - text.count("<thead>")
    assert text.count("<math ") == rows, "each row of a table has one formula"
    assert "<msub>" in text
    assert "<msqrt>" in text
