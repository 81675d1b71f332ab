"""Time each preset's forward and backward beside that of ``fitnet`` in the same run.

    python experiments/distiller_speed/measure.py --out experiments/distiller_speed/result.json

Five pyramid levels of a batch of 640 x 640 images, from the taps to the gradients on the student's taps and on the
distiller's own parameters. In each round every preset is measured once, in a random order, each time right behind
``fitnet``; a ratio is the median over rounds of the two times. So whatever else the machine does falls on both.
Seconds of the processor (--clock processor) are what a busy machine disturbs least; an accelerator has none. Extra
memory is the peak of one call above what stood before it (CPU: the kernel's VmHWM, Linux; CUDA: torch's counter).
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from detections import IMAGE_SIZE_PX, NUM_CLASSES, Scene, make_scene
from torchvision.models.detection import retinanet_resnet50_fpn

from autokd.benchmark import current_commit
from autokd.distill import Distiller, build_distiller
from autokd.presets import load_preset, preset_names

BASE = "fitnet"
REAL_HEAD = "crosskd, real head"
"""With a teacher's head whose rest is a 3 x 3 block and 3 x 3 predictors; ``crosskd`` has 1 x 1 predictors alone."""
MIB = 2**20
Step = Callable[[], None]
Clock = Callable[[], float]
CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "processor": time.process_time}
Seconds = dict[str, dict[str, list[float]]]
"""Of each preset (own) and of ``fitnet`` right before it (base), by round."""
Row = dict[str, Any]


def step_of(distiller: Distiller, scene: Scene) -> Step:
    """Forward and backward of one batch."""
    wanted = [*scene.leaves(), *(p for p in distiller.parameters() if p.requires_grad)]

    def step() -> None:
        loss = distiller(scene.student, scene.teacher, scene.targets).total
        torch.autograd.grad(loss, wanted, allow_unused=True)

    return step


def make_steps(names: list[str], device: torch.device, num_images: int, num_objects: int) -> dict[str, Step]:
    """The step of each preset, memories filled: one batch seen, then a new epoch begun."""
    scene = make_scene(num_images, num_objects, device)
    steps = {}
    for name in names:
        own = make_scene(num_images, num_objects, device, has_real_head=True) if name == REAL_HEAD else scene
        preset = load_preset(name.split(",")[0])
        distiller = build_distiller(preset, own.student, own.teacher, NUM_CLASSES).train()
        steps[name] = step_of(distiller, own)
        distiller.begin_epoch(1, num_epochs=12, steps_per_epoch=1000)
        steps[name]()
        distiller.begin_epoch(2, num_epochs=12, steps_per_epoch=1000)
        steps[name]()
    return steps


def seconds_of(step: Step, device: torch.device, clock: Clock) -> float:
    _wait(device)
    began = clock()
    step()
    _wait(device)
    return clock() - began


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def measure(steps: dict[str, Step], device: torch.device, rounds: int, repeats: int, clock: Clock) -> Seconds:
    """The best of ``repeats`` calls each, by round."""
    found: Seconds = {name: {"own": [], "base": []} for name in steps}
    order, gc_was_on = random.Random(0), gc.isenabled()
    gc.disable()
    for _ in range(rounds):
        for name in order.sample(list(steps), len(steps)):
            for key, step in (("base", steps[BASE]), ("own", steps[name])):
                found[name][key].append(min(seconds_of(step, device, clock) for _ in range(repeats)))
            gc.collect()
    if gc_was_on:
        gc.enable()
    return found


def extra_mib(step: Step, device: torch.device) -> float:
    """How much more memory one call held at its peak than before it."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return (torch.cuda.max_memory_allocated() - before) / MIB
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status_mib("VmRSS")
    step()
    return _status_mib("VmHWM") - before


def _status_mib(name: str) -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) / 1024


def detector_step(num_images: int, device: torch.device) -> Step:
    """Forward and backward of torchvision's RetinaNet (ResNet-50) on such a batch: what a distiller stands beside."""
    detector = retinanet_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=NUM_CLASSES, min_size=IMAGE_SIZE_PX, max_size=IMAGE_SIZE_PX
    ).to(device)
    images = [torch.rand(3, IMAGE_SIZE_PX, IMAGE_SIZE_PX, device=device) for _ in range(num_images)]
    target = {"boxes": torch.tensor([[10.0, 10, 100, 100]], device=device), "labels": torch.ones(1).long().to(device)}

    def step() -> None:
        sum(detector.train()(images, [target] * num_images).values()).backward()

    return step


def result_of(seconds: Seconds, memory: dict[str, float]) -> dict[str, Row]:
    """A row for each preset, the cheapest first."""
    rows: dict[str, Row] = {}
    for name, times in seconds.items():
        ratios = [own / base for own, base in zip(times["own"], times["base"])]
        rows[name] = {
            "ratio": round(statistics.median(ratios), 2),
            "ratio_least_and_greatest": [round(min(ratios), 2), round(max(ratios), 2)],
            "milliseconds": round(1000 * statistics.median(times["own"]), 2),
            "extra_mib": round(memory[name], 1),
        }
    return dict(sorted(rows.items(), key=lambda item: item[1]["ratio"]))


def circumstances(arguments: argparse.Namespace, device: torch.device) -> dict[str, object]:
    accelerator = torch.cuda.get_device_name() if device.type == "cuda" else None
    return {
        "command": " ".join(["python", "experiments/distiller_speed/measure.py", *sys.argv[1:]]),
        "commit": current_commit(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "accelerator": accelerator,
        "load_average_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "batch": arguments.batch,
        "objects_an_image": arguments.objects,
        "rounds": arguments.rounds,
        "clock": arguments.clock,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--presets", nargs="*", default=[*preset_names(), REAL_HEAD])
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--objects", type=int, default=20, help="in each image")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--repeats", type=int, default=1, help="calls in a row, of which the quickest counts")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--detector", action="store_true", help="one step of RetinaNet as well (15 s on a CPU thread)")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    result = circumstances(arguments, device)
    names = [BASE, *(name for name in arguments.presets if name != BASE)]
    steps = make_steps(names, device, arguments.batch, arguments.objects)
    seconds = measure(steps, device, arguments.rounds, arguments.repeats, CLOCKS[arguments.clock])
    rows = result_of(seconds, {name: extra_mib(step, device) for name, step in steps.items()})
    result["load_average_after"] = round(os.getloadavg()[0], 2)
    if arguments.detector:
        step = detector_step(arguments.batch, device)
        result["retinanet_r50_step_s"] = round(seconds_of(step, device, CLOCKS[arguments.clock]), 2)
    print(json.dumps(result, indent=1))
    for name, row in rows.items():
        print(f"{name:24s} {row['ratio']:8.2f} x  {row['milliseconds']:9.2f} ms {row['extra_mib']:9.1f} MiB")
    result |= {"presets": rows, "seconds": seconds}
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
