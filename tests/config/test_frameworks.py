"""The table of frameworks takes rows of installed packages, and refuses rows that cannot work."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

from autokd.config import (
    DetectorSection,
    FrameworkRow,
    TeacherRecipe,
    framework_row,
    frameworks,
    load_config,
    register_framework,
)
from autokd.errors import ConfigError


class OtherSection(DetectorSection):
    """Of a package of its own."""

    framework: Literal["other"]
    checkpoint: Path | None = None
    train: TeacherRecipe | None = None


class LackingSection(DetectorSection):
    """Without the fields that every section has."""

    framework: Literal["lacking"]


class EntryPoint:
    def load(self) -> FrameworkRow:
        return FrameworkRow(OtherSection, "other_package.framework:OtherFramework")


def test_an_installed_package_adds_its_row(monkeypatch):
    real = frameworks.metadata.entry_points

    def entry_points(group):
        return [EntryPoint()] if group == "autokd.frameworks" else real(group=group)

    monkeypatch.setattr(frameworks.metadata, "entry_points", entry_points)
    frameworks.third_party_rows.cache_clear()
    try:
        assert framework_row("other").section is OtherSection
        config = load_config("data: {format: shapes}\nteacher: {framework: other, train: {}}\nstudent: {}\n")
        assert isinstance(config.teacher, OtherSection)
    finally:
        monkeypatch.undo()
        frameworks.third_party_rows.cache_clear()
    with pytest.raises(ConfigError, match="'other' is not one of"):
        framework_row("other")


def test_a_section_without_checkpoint_and_train_is_refused():
    with pytest.raises(ConfigError, match="has no field checkpoint and no train"):
        register_framework(FrameworkRow(LackingSection, "nowhere:Nothing"))
