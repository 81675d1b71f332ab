"""A whole `autokd search` on a set of COCO's size, of which few images are decoded: time and memory of all processes.

``make`` writes the synthetic set of ``annotation_store.py`` with 300 validation images. ``run`` searches on it with a
tiny pair: teacher, caches, warm start, proxies on a subset, race, full trainings, report. It samples the memory of all
processes of the run (the driver and Ray's), each page counted by its share (PSS), and counts the images that were
decoded.

    python experiments/scale/whole_search.py make FOLDER
    python experiments/scale/whole_search.py run FOLDER --work WORK [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import annotation_store

NUM_VAL = 300
CONFIG = """
name: whole_search
data:
  root: {root}
  images: {{train: train2017, val: val2017}}
  train: annotations/instances_train2017.json
  val: annotations/instances_val2017.json
  image_size_px: [128, 128]
teacher: {{architecture: fcos, backbone: {{width: 8}}, fpn_channels: 16, train: {{images: 400, batch_size: 8}}}}
student: {{architecture: fcos, backbone: {{width: 8}}, fpn_channels: 16}}
search: {{trials: 4, enqueue: [pkd], finalists: 2, finalist_seeds: [1]}}
proxy:
  images: 128
  batch_size: 8
  subset: 0.002
  subset_rule: stratified
  val_subset: 0.3
  warm_start: {{images: 128}}
  calibration_trials: 2
full: {{images: 256, batch_size: 8, seeds: [0], baselines: [none]}}
runtime: {{workers: 2}}
cache: {{max_bytes: 1 GB}}
"""


def make(root: Path) -> None:
    """Write the set."""
    annotation_store.IMAGES["val2017"], annotation_store.BOXES["val2017"] = NUM_VAL, 2_180
    annotation_store.make(root)


def run(root: Path, work: Path) -> dict[str, float]:
    """Search, and return seconds, peak memory in GiB, and counts."""
    work.mkdir(parents=True, exist_ok=True)
    config, log = work / "search.yaml", work / "decoded.log"
    config.write_text(CONFIG.format(root=root.resolve()))
    log.unlink(missing_ok=True)
    hook = work / "hook"
    hook.mkdir(exist_ok=True)
    (hook / "sitecustomize.py").write_text(_COUNTING)
    paths = [str(hook), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "AUTOKD_DECODED": str(log)}
    command = [sys.executable, "-m", "autokd", "search", str(config), "--run-dir", str(work / "run")]
    began_s = time.monotonic()
    with (work / "search.log").open("w") as output:
        process = subprocess.Popen(
            [*command, "--cache-dir", str(work / "cache")], env=environment, stdout=output, stderr=output
        )
        peak = most_processes = 0
        while process.poll() is None:
            total, count = _memory(str(log))
            peak, most_processes = max(peak, total), max(most_processes, count)
            time.sleep(1)
    seconds = time.monotonic() - began_s
    if process.returncode:
        raise SystemExit((work / "search.log").read_text()[-3000:])
    decoded = log.read_text().split() if log.exists() else []
    cached = sum(path.stat().st_size for path in (work / "cache" / "teacher_taps").rglob("*.npy"))
    return {
        "seconds": round(seconds),
        "peak_gib": round(peak / 2**30, 2),
        "processes": most_processes,
        "train_images": annotation_store.IMAGES["train2017"],
        "decoded_images": len(set(decoded)),
        "decodings": len(decoded),
        "teachers_outputs_mb": round(cached / 1e6, 1),
    }


def _memory(mark: str) -> tuple[int, int]:
    """Return the bytes of all processes that have the mark in their environment, and their number."""
    total = count = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes():
                lines = (folder / "smaps_rollup").read_text().splitlines()
                total += 1024 * int(next(line for line in lines if line.startswith("Pss:")).split()[1])
                count += 1
        except (OSError, StopIteration):
            continue  # it has ended
    return total, count


_COUNTING = '''"""Writes the name of every image that Pillow decodes to a file, one a line."""
import os
import sys

if os.environ.get("AUTOKD_DECODED"):
    import importlib.abc
    import importlib.machinery

    class Finder(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path, target=None):
            if name != "PIL.ImageFile":
                return None
            sys.meta_path.remove(self)
            spec = importlib.machinery.PathFinder.find_spec(name, path)
            load = spec.loader.exec_module

            def exec_module(module):
                load(module)
                plain = module.ImageFile.load

                def counted(image):
                    if image.tile and getattr(image, "filename", ""):
                        with open(os.environ["AUTOKD_DECODED"], "a") as file:
                            file.write(os.path.join(*str(image.filename).split(os.sep)[-2:]) + "\\n")
                    return plain(image)

                module.ImageFile.load = counted

            spec.loader.exec_module = exec_module
            return spec

    sys.meta_path.insert(0, Finder())
'''


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=["make", "run"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--work", type=Path, default=Path("whole_search"))
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if given.step == "make":
        make(given.folder)
        return
    found = json.dumps(run(given.folder, given.work), indent=1)
    print(found)
    if given.json:
        given.json.write_text(found + "\n")


if __name__ == "__main__":
    main()
