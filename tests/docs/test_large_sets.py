"""The files of docs/large-sets.md are complete and valid."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from autokd.config import load_config

PAGE = Path(__file__).resolve().parents[2] / "docs" / "large-sets.md"
BLOCKS = [block for block in re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL) if "\ndata:" in block]


@pytest.mark.parametrize("text", BLOCKS, ids=["one GPU", "eight GPUs", "spot cluster"])
def test_each_file_is_read_as_it_stands(text: str, tmp_path: Path) -> None:
    for folder in ("train2017", "val2017", "annotations"):
        (tmp_path / folder).mkdir()
    for split in ("train", "val"):
        (tmp_path / "annotations" / f"instances_{split}2017.json").write_text("{}")
    config = load_config(re.sub(r"root: /\w+/coco", f"root: {tmp_path}", text))
    assert f"autokd search {config.name}.yaml" in PAGE.read_text()
    assert config.full.teacher_outputs == "live", "118,287 images are not stored"
    assert config.proxy.images is not None
