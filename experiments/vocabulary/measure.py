"""Count the distinct terms of the vocabulary, and try a random 2,000 of them for losses that are not finite.

python experiments/vocabulary/measure.py
"""

from __future__ import annotations

import itertools
import json
import platform
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from autokd.benchmark import current_commit
from autokd.config import load_space
from autokd.detector_outputs import DetectorOutputs
from autokd.distill import build_distiller
from autokd.errors import DistillError, NonFiniteError
from autokd.space import Space, count_specs
from autokd.spec import DISTANCES, SOURCES, TRANSFORMS, DistillerSpec

HERE = Path(__file__).parent
FEATURE_SOURCES = [name for name, row in SOURCES.items() if set(row.needs_taps) == {"fpn"} and not row.needs_of_teacher]
SPACE = f"""
space:
  terms: 1
  sources: [{", ".join(FEATURE_SOURCES)}]
  transforms: {{attention: all, scale: all, relation: all, normalize: all}}
  distances: all
  gradient_ratio: 40
"""
NUM_SPECS = 2000
LEVELS = {"p3": ((13, 17), 8), "p4": ((7, 9), 16), "p5": ((4, 5), 32)}
SIZE_PX = (104, 136)
MAPS = {"ordinary": 1.0, "large": 100.0, "tiny": 1e-6, "constant": 0.0}
BOXES = {
    "boxes": [[[10, 8, 70, 60], [60, 50, 120, 90], [5, 5, 30, 25]], [[20, 20, 100, 80]]],
    "an image without boxes": [[[10, 8, 70, 60]], []],
    "no boxes": [[], []],
    "one image": [[[10, 8, 70, 60], [15, 12, 66, 58]]],
}


def main() -> None:
    torch.set_num_threads(1)
    space = load_space(SPACE)
    began = time.monotonic()
    count = count_specs(space)
    seconds = time.monotonic() - began
    combinations = 1
    for slot in space.slots:
        combinations *= len(slot.options)
    rng = np.random.default_rng(0)
    specs: dict[str, DistillerSpec] = {}
    while len(specs) < NUM_SPECS:
        spec = space.sample(rng)
        specs[spec.digest] = spec
    outcomes, constant = Counter[str](), []
    for number, spec in enumerate(specs.values()):
        found = try_spec(spec)
        outcomes.update(found)
        if "refused as constant on this pair" in found:
            constant.append(spec.to_data()["terms"][0])
        if number % 200 == 199:
            print(number + 1, dict(outcomes.most_common(12)), flush=True)
    result = {
        "command": "python experiments/vocabulary/measure.py",
        "commit": current_commit(),
        "machine": f"{platform.machine()}, one thread; torch {torch.__version__}",
        "operators": {"sources": len(SOURCES), "transforms": len(TRANSFORMS), "distances": len(DISTANCES)},
        "feature_terms": {
            "combinations": combinations,
            "well_typed_and_distinct": count,
            "count_seconds": round(seconds, 2),
            "slots": {slot.name: [option.label for option in slot.options] for slot in space.slots},
            "with_schedules_and_layers": weighted(space),
        },
        "random_specs": {"number": NUM_SPECS, "seed": 0, "situations": dict(outcomes), "refused": constant},
    }
    (HERE / "result.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({k: v for k, v in result["random_specs"].items() if k != "refused"}, indent=1))
    print(f"{combinations:,} combinations, {count:,} well-typed and distinct")


def weighted(space: Space) -> int:
    """Return the count with every schedule and every weighting of the levels as a choice."""
    return count_specs(
        replace(space, schedules=("constant", "linear_decay", "warm_up"), level_weighting=("equal", "gap", "gradient"))
    )


def try_spec(spec: DistillerSpec) -> Counter[str]:
    """Return the counts of how the loss and its gradient came out in every situation."""
    pair = outputs(2, 1.0, 0, 4), outputs(2, 1.0, 1, 6)
    try:
        distiller = build_distiller(spec, *pair, num_classes=3)
    except DistillError as error:
        if "does not depend on the student" not in str(error):
            raise
        return Counter({"refused as constant on this pair": 1})
    found: Counter[str] = Counter()
    for scale, lists in itertools.product(MAPS.values(), BOXES.values()):
        student, teacher = (outputs(len(lists), scale, seed, channels) for seed, channels in ((2, 4), (3, 6)))
        try:
            total = distiller(student, teacher, targets(lists)).total
        except NonFiniteError as error:
            found[f"NOT FINITE at {scale:g}: {error}"] += 1
            continue
        taps = [*student.pyramid.values(), *distiller.parameters()]
        gradients = torch.autograd.grad(total, taps, allow_unused=True)
        is_finite = bool(total.isfinite()) and all(g is None or bool(g.isfinite().all()) for g in gradients)
        found["finite" if is_finite else f"GRADIENT NOT FINITE at {scale:g}: {spec.terms[0]}"] += 1
        if total < -1e-6:
            found[f"NEGATIVE: {spec.terms[0]}"] += 1
    return found


def outputs(num_images: int, scale: float, seed: int, channels: int) -> DetectorOutputs:
    generator = torch.Generator().manual_seed(seed)
    maps: dict[str, Tensor] = {}
    for name, (size, _) in LEVELS.items():
        numbers = torch.randn(num_images, channels, *size, generator=generator)
        maps[name] = (numbers * scale if scale else torch.full_like(numbers, 0.1)).requires_grad_()
    losses = {"task": sum((x**2).mean() for x in maps.values()) / max(scale, 1e-3) ** 2}
    strides = {name: stride for name, (_, stride) in LEVELS.items()}
    return DetectorOutputs(maps, strides, losses=losses, image_size_px=SIZE_PX)


def targets(lists: list[list[list[int]]]) -> list[dict[str, Tensor]]:
    return [
        {"boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), "labels": torch.arange(len(boxes)) % 3}
        for boxes in lists
    ]


if __name__ == "__main__":
    main()
