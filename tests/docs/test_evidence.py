"""The figures of docs/evidence.md and of the README are those of the recorded files."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def evidence() -> ModuleType:
    path = ROOT / "docs" / "hooks" / "evidence.py"
    spec = importlib.util.spec_from_file_location("evidence", path)
    assert spec is not None
    assert spec.loader is not None
    sys.modules["evidence"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_the_one_that_the_recorded_files_give(evidence):
    assert evidence.PAGE.read_text(encoding="utf-8") == evidence.page(), "run python docs/hooks/evidence.py"


@pytest.mark.parametrize("name", ["claim", "results"])
def test_the_front_page_has_the_recorded_figures(evidence, name):
    text = evidence.FRONT.read_text(encoding="utf-8")
    block = text.split(f"<!-- {name} -->\n")[1].split("<!-- end -->")[0]
    assert block.splitlines() == evidence.front()[name], "run python docs/hooks/evidence.py"


def test_a_changed_record_changes_the_page(evidence, monkeypatch):
    before = evidence.page()
    read = evidence._read

    def other(path):
        found = read(path)
        if path == "step_overhead/result.json":
            found["ratio_to_none"]["cached"]["median"] = 7.89
        return found

    monkeypatch.setattr(evidence, "_read", other)
    assert "7.89 x" in evidence.page() != before


def test_the_gain_is_the_mean_of_the_differences_of_equal_seeds(evidence):
    """By hand: differences .02 and .04, their mean .03, t(1 degree of freedom, 95%) = 12.706, error .01."""
    ours, theirs = {0: 0.42, 1: 0.46, 2: 0.9}, {0: 0.40, 1: 0.42}
    assert evidence.interval(ours, theirs) == {"mean": "3.0", "low": "-9.7", "high": "15.7", "seeds": "2"}


def test_the_claim_says_how_often_the_data_had_been_searched():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    claim = re.sub(r"\s+", " ", text.split("<!-- claim -->")[1].split("<!-- end -->")[0])
    assert "seventh search" in claim
    assert "not blind to test" in claim


def test_the_front_page_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 110
