"""Time and memory of a start on a set of COCO's size, for the driver (first and second) and for a further worker.

``make`` writes a synthetic set: 118,287 training images with 860,001 boxes and polygons (about 430 MiB of JSON), 5,000
validation images, and their files, which are hard links to one small JPEG, since no start decodes them. ``measure``
runs each start in a process of its own, and reads its processor time and its peak of resident memory. The same script
measures an older AutoKD: put that one's checkout first on PYTHONPATH.

    python experiments/scale/annotation_store.py make FOLDER
    python experiments/scale/annotation_store.py measure FOLDER --cache CACHE [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import random
import resource
import subprocess
import sys
import time
from pathlib import Path

from PIL import Image

IMAGES = {"train2017": 118_287, "val2017": 5_000}
BOXES = {"train2017": 860_001, "val2017": 36_335}
CATEGORIES = 80
LINKS_PER_FILE = 30_000
"""Hard links to one file; ext4 allows 65,000."""
CORNERS = (6, 34)
"""Fewest and most corners of a polygon; with these the JSON has the size of COCO's."""
CONFIG = """
data:
  root: {root}
  images: {{train: train2017, val: val2017}}
  train: annotations/instances_train2017.json
  val: annotations/instances_val2017.json
  image_size_px: [640, 640]
teacher: {{architecture: fcos, train: {{}}}}
student: {{architecture: fcos}}
"""
OLD_CONFIG = CONFIG.replace("{{train: train2017, val: val2017}}", "train2017")


def make(root: Path) -> None:
    """Write the set, deterministic by a fixed seed."""
    rng = random.Random(0)
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    for split, num_images in IMAGES.items():
        _write_annotations(root / "annotations" / f"instances_{split}.json", num_images, BOXES[split], rng)
        folder = root / split
        folder.mkdir(exist_ok=True)
        for first in range(1, num_images + 1, LINKS_PER_FILE):
            source = folder / f"{first:012d}.jpg"
            Image.new("RGB", (640, 480), (first % 256, 90, 120)).save(source, quality=30)
            for number in range(first + 1, min(first + LINKS_PER_FILE, num_images + 1)):
                os.link(source, folder / f"{number:012d}.jpg")


def _write_annotations(path: Path, num_images: int, num_boxes: int, rng: random.Random) -> None:
    with path.open("w") as file:
        file.write('{"info": {}, "licenses": [], "images": [')
        for i in range(1, num_images + 1):
            image = {"id": i, "file_name": f"{i:012d}.jpg", "width": 640, "height": 480, "license": 1}
            file.write((", " if i > 1 else "") + json.dumps(image))
        file.write('], "annotations": [')
        for i in range(1, num_boxes + 1):
            w, h = round(rng.uniform(4, 300), 2), round(rng.uniform(4, 220), 2)
            x, y = round(rng.uniform(0, 639 - w), 2), round(rng.uniform(0, 479 - h), 2)
            corners = rng.randint(*CORNERS)
            polygon = [
                round(v, 2)
                for _ in range(corners)
                for v in (rng.uniform(x, x + w), rng.uniform(y, y + h))
            ]  # fmt: skip
            row = {
                "segmentation": [polygon], "area": round(0.6 * w * h, 4), "iscrowd": 0,
                "image_id": rng.randint(1, num_images), "bbox": [x, y, w, h],
                "category_id": rng.randint(1, CATEGORIES), "id": i,
            }  # fmt: skip
            file.write((", " if i > 1 else "") + json.dumps(row))
        categories = [{"id": i, "name": f"class {i}", "supercategory": "thing"} for i in range(1, CATEGORIES + 1)]
        file.write('], "categories": ' + json.dumps(categories) + "}")


def measure(root: Path, cache: Path) -> dict[str, dict[str, float]]:
    """Return seconds and MiB of each start.

    Args:
        root: folder that ``make`` wrote.
        cache: folder of the cache; empty before the first start.
    """
    factory = cache / "factory.pickle"
    cache.mkdir(parents=True, exist_ok=True)
    stages = {"imports alone": "imports", "first start": "driver", "second start": "driver", "further worker": "worker"}
    return {name: _in_child(stage, root, cache, factory) for name, stage in stages.items()}


def _in_child(stage: str, root: Path, cache: Path, factory: Path) -> dict[str, float]:
    command = [sys.executable, __file__, stage, str(root), "--cache", str(cache), "--factory", str(factory)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def start(stage: str, root: Path, cache: Path, factory: Path) -> None:
    """Make one start in this process, and print what it took."""
    from autokd.config import load_config
    from autokd.data import load_datasets
    from autokd.detectors import resolve
    from autokd.jobs import WorkerResources
    from autokd.training import TrainingEvaluatorFactory

    began, wall = time.process_time(), time.monotonic()
    if stage == "driver":
        try:
            config = resolve(load_config(CONFIG.format(root=root)))
        except Exception:  # noqa: BLE001 - an AutoKD without a folder a split
            config = resolve(load_config(OLD_CONFIG.format(root=_in_one_folder(root))))
        datasets = load_datasets(config.data, cache)
        _ = [split.fingerprint for split in datasets.splits]
        factory.write_bytes(pickle.dumps(TrainingEvaluatorFactory(config, cache, cache / "run", datasets)))
    elif stage == "worker":
        evaluator = pickle.loads(factory.read_bytes())(WorkerResources(1, "cpu", 0.0))
        datasets = evaluator.assets.data.full
        _ = [split.fingerprint for split in datasets.splits]
        _ = datasets.train.target(0)
    spent = {"cpu_s": time.process_time() - began, "wall_s": time.monotonic() - wall}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({**{name: round(value, 2) for name, value in spent.items()}, "peak_mib": round(peak)}))


def _in_one_folder(root: Path) -> Path:
    """Return a root whose ``train2017`` holds the links of val, too, as an older AutoKD needs it."""
    for path in (root / "val2017").iterdir():
        target = root / "train2017" / path.name
        if not target.exists():
            os.link(path, target)
    return root


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=["make", "measure", "imports", "driver", "worker"])
    parser.add_argument("root", type=Path)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--factory", type=Path)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.stage == "make":
        make(args.root)
    elif args.stage == "measure":
        found = measure(args.root, args.cache)
        for name, row in found.items():
            print(f"{name:16} {row['cpu_s']:8.2f} s CPU {row['wall_s']:8.2f} s {row['peak_mib']:8.0f} MiB")
        if args.json:
            args.json.write_text(json.dumps(found, indent=1) + "\n")
    else:
        start(args.stage, args.root, args.cache, args.factory)


if __name__ == "__main__":
    main()
