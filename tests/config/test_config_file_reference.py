"""The documentation of config files is made from the models."""

from __future__ import annotations

from pathlib import Path

from autokd.config.reference import reference

PAGE = Path(__file__).parents[2] / "docs" / "config-file.md"


def test_the_reference_of_config_files_is_up_to_date():
    assert PAGE.read_text() == reference(), "run: python -m autokd.config.reference > docs/config-file.md"


def test_every_key_has_a_meaning():
    rows = [line for line in reference().splitlines() if line.startswith("| `")]
    assert not [row for row in rows if row.endswith("|  |")]
