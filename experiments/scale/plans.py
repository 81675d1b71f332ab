"""`autokd plan` of the three files of docs/large-sets.md on the synthetic set of COCO's size.

A CPU cannot measure their detectors in half a minute, so that a narrow pair and smaller images take their place; what
does not depend on the pair (images, trainings, what is stored) is that of the files.

    python experiments/scale/plans.py FOLDER [--seconds 30] > experiments/scale/plans.txt
"""

from __future__ import annotations

import argparse
import re
import tempfile
from pathlib import Path

import yaml
from rich.console import Console

import autokd
from autokd.cli.plan import as_table

PAGE = Path(__file__).resolve().parents[2] / "docs" / "large-sets.md"
GPUS = {"coco_one_gpu": 1, "coco_eight_gpus": 8, "coco_spot": 16}


def files() -> list[dict]:
    """Return the complete files of the page."""
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return [data for block in blocks if "data" in (data := yaml.safe_load(block))]


def narrow(data: dict, root: Path) -> dict:
    """Return a file with a pair and images that a CPU can measure."""
    found = data | {"data": data["data"] | {"root": str(root), "image_size_px": [128, 128]}}
    found["teacher"] = {"architecture": "fcos", "backbone": {"width": 16}, "fpn_channels": 32, "train": {"images": 400}}
    found["student"] = {"architecture": "fcos", "backbone": {"width": 8}, "fpn_channels": 32}
    found["search"] = found["search"] | {"enqueue": ["pkd"]}
    found["runtime"] = {"workers": found["runtime"]["workers"], "gpus_per_worker": 0, "threads_per_worker": 1}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=30.0)
    given = parser.parse_args()
    console = Console(width=118)
    with tempfile.TemporaryDirectory() as cache:
        for data in files():
            bill = autokd.plan(narrow(data, given.folder.resolve()), cache_dir=cache, seconds=given.seconds)
            console.print(as_table(bill))


if __name__ == "__main__":
    main()
