"""Decoding and letterboxing of 2,000 photographs of 640 x 480 pixels, by one thread and by two.

    python experiments/scale/decoding.py               # prints images a second, writes decoding.json
    python experiments/scale/decoding.py --processor   # milliseconds of the processor, where other work keeps it busy

The photographs are drawn (blocks of color under noise, JPEG quality 90: about 110 KB each) into a temporary folder. One
thread with Pillow's own filter is what this project did before torch's filter, torchvision's decoder and several
threads.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from autokd.data.geometry import letterbox
from autokd.data.images import read_pixels
from autokd.training.prefetch import made_ahead

NUM_IMAGES, FRAME = 2_000, (480, 640)
INPUTS = {"640 x 640": (640, 640), "800 x 1333": (800, 1333)}
RESULT = Path(__file__).with_name("decoding.json")


def draw_photographs(folder: Path) -> list[Path]:
    """Write the images; 50 different ones, each linked 40 times, so that drawing them takes seconds."""
    rng = np.random.default_rng(0)
    paths: list[Path] = []
    for number in range(NUM_IMAGES):
        path = folder / f"{number:06d}.jpg"
        if number < 50:
            blocks = np.kron(rng.integers(0, 255, (30, 40, 3)), np.ones((16, 16, 1)))
            pixels = np.clip(blocks + rng.normal(0, 12, blocks.shape), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(path, "JPEG", quality=90)
        else:
            os.link(paths[number % 50], path)
        paths.append(path)
    return paths


def by_pillow(path: Path, size: tuple[int, int]) -> np.ndarray:
    with Image.open(path) as image:
        image.draft("RGB", (2 * size[1], 2 * size[0]))
        rgb = image.convert("RGB").resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.ascontiguousarray(np.asarray(rgb).transpose(2, 0, 1))


def images_a_second(make: Callable[[Path], object], paths: Sequence[Path], threads: int) -> float:
    began = time.perf_counter()
    for _ in made_ahead(make, paths, threads):
        pass
    return len(paths) / (time.perf_counter() - began)


def processor_ms(make: Callable[[Path], object], paths: Sequence[Path], rounds: int = 5) -> float:
    """Return the least mean of several rounds: what other programs do to caches and clocks only adds to it."""
    times = []
    for _ in range(rounds):
        began = time.thread_time()
        for path in paths:
            make(path)
        times.append((time.thread_time() - began) / len(paths))
    return 1e3 * min(times)


def measure_processor() -> None:
    """Write the processor's milliseconds of an image into the key "processor ms" of the result."""
    torch.set_num_threads(1)
    rows: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        paths = draw_photographs(Path(folder))[:50]
        for name, frame in INPUTS.items():
            size = letterbox(FRAME, frame).content_size
            ways: dict[str, Callable[[Path], object]] = {
                "Pillow": lambda path, size=size: by_pillow(path, size),
                "ours": lambda path, size=size: read_pixels(path, FRAME, size),
            }
            for make in ways.values():
                make(paths[0])
            rows[name] = {way: processor_ms(make, paths) for way, make in ways.items()}
    found = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    RESULT.write_text(json.dumps(found | {"processor ms": rows}, indent=1) + "\n")
    for name, row in rows.items():
        print(name, row, f"ratio {row['Pillow'] / row['ours']:.2f}")


def main() -> None:
    torch.set_num_threads(1)
    rows: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        paths = draw_photographs(Path(folder))
        for name, frame in INPUTS.items():
            size = letterbox(FRAME, frame).content_size

            def ours(path: Path, size: tuple[int, int] = size) -> np.ndarray:
                return read_pixels(path, FRAME, size)

            def pillow(path: Path, size: tuple[int, int] = size) -> np.ndarray:
                return by_pillow(path, size)

            images_a_second(ours, paths[:100], 0)  # the files are in the system's memory from here on
            rows[name] = {
                "Pillow, one thread": images_a_second(pillow, paths, 0),
                "ours, one thread": images_a_second(ours, paths, 0),
                "ours, two threads": images_a_second(ours, paths, 2),
            }
    found = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    RESULT.write_text(json.dumps(found | rows, indent=1) + "\n")
    for name, row in rows.items():
        base = next(iter(row.values()))
        for way, rate in row.items():
            print(f"{name:12} {way:20} {rate:7.0f} images/s  {rate / base:.2f}")


if __name__ == "__main__":
    measure_processor() if "--processor" in sys.argv[1:] else main()
