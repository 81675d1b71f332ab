"""Time a training step without distillation, with the cached teacher, and with the teacher running.

    python experiments/step_overhead/measure.py --root BCCD_FOLDER --out result.json

The steps are those of ``autokd.training.train``: loading, forward, distiller, backward, clipping, optimizer. A
block is one of its epochs over 160 images: 20 steps, of which one measures the relative weights again. The three
kinds take turns, a block each a round, in a changing order, so that whatever else the machine does falls
on all of them alike; a ratio is the median over rounds of the blocks' ratios. Seconds are the processor's, which
other programs disturb least (a step waits for nothing but the processor); --clock wall counts the wall's.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from autokd.benchmark import current_commit
from autokd.config import (
    Backbone,
    CocoData,
    FullRecipe,
    ResolvedConfig,
    RunConfig,
    TeacherRecipe,
    TorchvisionDetector,
    complete_recipes,
)
from autokd.presets import load_preset
from autokd.spec import DistillerSpec, Weight
from autokd.training import LiveTeacher, train
from autokd.training.assets import TrainingAssets
from autokd.training.jobs.build_distillation import build_distillation

KINDS = ("none", "cached", "live")
STEPS, BATCH_SIZE = 20, 8
GRADIENT_RATIO = 40.0
Clock = Callable[[], float]
CLOCKS: dict[str, Clock] = {"processor": time.process_time, "wall": time.perf_counter}


def settings(root: Path) -> ResolvedConfig:
    """The BCCD settings of the design: width 32 teaches width 8, 120 x 160 pixels."""
    data = CocoData(
        root=root,
        train=Path("instances_train.json"),
        val=Path("instances_val.json"),
        test=Path("instances_test.json"),
        image_size_px=(120, 160),
    )
    # How well the teacher was trained does not change what it costs.
    teacher = TorchvisionDetector(backbone=Backbone(blocks=(2, 2, 2, 2), width=32), train=TeacherRecipe(epochs=1))
    student = TorchvisionDetector(backbone=Backbone(blocks=(1, 1, 1, 1), width=8))
    full = FullRecipe(batch_size=BATCH_SIZE)
    return complete_recipes(RunConfig(data=data, teacher=teacher, student=student, full=full))


def fitnet(config: ResolvedConfig) -> DistillerSpec:
    """The preset at a relative weight, so that recalibration is part of what is measured."""
    spec = load_preset("fitnet")
    weight = Weight("relative", GRADIENT_RATIO)
    return DistillerSpec(tuple(replace(term, weight=weight) for term in spec.terms), spec.name, spec.paper)


def measure(config: ResolvedConfig, cache_dir: Path, rounds: int, clock: Clock) -> dict[str, list[float]]:
    """Seconds of each block, by kind; the first round warms up and is dropped."""
    assets = TrainingAssets(config, cache_dir, torch.device("cpu"))
    num_images = assets.data.full.train.num_images
    recipe = config.full.model_copy(update={"epochs": rounds + 1})
    loader = assets.data.training_loader("full", subset=STEPS * BATCH_SIZE / num_images)
    assets.data.full.train.preload()
    running = LiveTeacher(assets.teachers.first.build(assets.device))
    trainings = {}
    for kind in KINDS:
        student = assets.students.new(seed=0)
        distillation = None
        if kind != "none":
            distillation = build_distillation(fitnet(config), student, loader, assets, "full", seed=0)
            if kind == "live":
                distillation = replace(distillation, teacher=running)
        trainings[kind] = train(student, loader, recipe, seed=0, distillation=distillation)
    assert loader.steps_per_epoch(0) == STEPS
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    order = random.Random(0)
    for number in range(rounds + 1):
        for kind in order.sample(KINDS, len(KINDS)):
            began = clock()
            next(trainings[kind])
            if number > 0:
                seconds[kind].append(clock() - began)
    return seconds


def result_of(seconds: dict[str, list[float]]) -> dict[str, object]:
    """Medians a step, and the ratios to "none" with their quartiles."""
    ratios = {}
    for kind in KINDS[1:]:
        by_round = [block / none for block, none in zip(seconds[kind], seconds["none"])]
        low, middle, high = statistics.quantiles(by_round, n=4)
        ratios[kind] = {"median": round(middle, 4), "quartiles": [round(low, 4), round(high, 4)]}
    return {
        "step_ms": {kind: round(1000 * statistics.median(blocks) / STEPS, 2) for kind, blocks in seconds.items()},
        "ratio_to_none": ratios,
        "block_seconds": {kind: [round(block, 4) for block in blocks] for kind, blocks in seconds.items()},
    }


def circumstances(rounds: int, clock: str) -> dict[str, object]:
    return {
        "commit": current_commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "clock": clock,
        "rounds": rounds,
        "steps_a_block": STEPS,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, required=True, help="folder of the BCCD set")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1, help="a worker's share of two cores is one")
    parser.add_argument("--clock", choices=list(CLOCKS), default="processor")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as cache_dir:
        seconds = measure(settings(arguments.root), Path(cache_dir), arguments.rounds, CLOCKS[arguments.clock])
    result = circumstances(arguments.rounds, arguments.clock) | result_of(seconds)
    shown = {key: value for key, value in result.items() if key != "block_seconds"}
    print(json.dumps(shown, indent=1))
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
