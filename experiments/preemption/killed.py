"""Kill a full training every few seconds until it ends by itself, and compare it with one that was left alone.

    python experiments/preemption/killed.py kills --every-s 20 --signal KILL --out experiments/preemption/kill.json
    python experiments/preemption/killed.py cost --out experiments/preemption/cost.json

``kills`` starts the training as a process, kills it so many seconds after its first step, starts it again, until it
ends. What is lost are the steps that were computed twice. Seconds before the first step (imports, data, building the
pair) are listed apart: they are those of any start, with or without a checkpoint.

``cost`` trains in one process, in turns with checkpoints and without, and compares the processor's seconds of all its
threads, so that the thread that writes counts too. ``states`` copies and writes the state of larger students.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from autokd.benchmark import current_commit
from autokd.config import ResolvedConfig, RunConfig, complete_recipes
from autokd.data import Datasets
from autokd.detectors import build_detector
from autokd.files import write_json_atomically
from autokd.jobs import Job, Outcome, WorkerResources
from autokd.presets import load_preset
from autokd.runtime.containment import run_guarded
from autokd.training import CheckpointFile, TrainingEvaluatorFactory, prepare
from autokd.training.checkpoint.file import write_checkpoint
from autokd.training.checkpoint.state import TrainingState
from autokd.training.optim.update import StandardUpdate, make_update_rule

SPEC = load_preset("global_knowledge").with_gradient_ratio(20.0)
"""A distiller with a memory: prototypes, which are chosen anew in each epoch."""
JOB = Job("full-killed-s0", SPEC, "full")


def settings(epochs: int, checkpoint_every_s: float | None) -> ResolvedConfig:
    """Return 64 generated images of 96 x 96, and a training of 16 steps an epoch."""
    sections: dict[str, Any] = {
        "data": {"format": "shapes", "image_size_px": (96, 96), "num_train": 64, "num_val": 16, "num_test": 16},
        "teacher": {"backbone": {"width": 16}, "fpn_channels": 32, "train": {"epochs": 1, "batch_size": 8}},
        "student": {"backbone": {"width": 16}, "fpn_channels": 32},
        "full": {"epochs": epochs, "batch_size": 4, "weight_average": 0.99},
        "runtime": {"workers": 0, "checkpoint_every_s": checkpoint_every_s},
    }
    return complete_recipes(RunConfig.model_validate(sections))


# ------------------------------------------------------------------------------------------------ a process


def work(arguments: argparse.Namespace) -> None:
    """Train in this process, with a line in ``steps.log`` for each step."""
    torch.set_num_threads(1)
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    plain = CheckpointFile.after_step
    with (folder / "steps.log").open("a") as log:

        def after_step(self: CheckpointFile, snapshot: Any) -> None:
            log.write(f"{time.time()}\n")
            log.flush()
            plain(self, snapshot)

        CheckpointFile.after_step = after_step  # type: ignore[method-assign]
        config = settings(arguments.epochs, arguments.checkpoint_every_s)
        outcome = train_once(config, arguments.cache, folder / "run", None)
    metrics = {name: value for name, value in outcome.metrics.items() if name != "train_seconds"}
    weights = torch.load(outcome.file("weights"), weights_only=True)
    from autokd.training.weights import weights_digest

    write_json_atomically(folder / "end.json", {"weights": weights_digest(weights), "metrics": metrics})


def train_once(config: ResolvedConfig, cache: Path, run: Path, datasets: Datasets | None) -> Outcome:
    training = run_guarded(TrainingEvaluatorFactory(config, cache, run, datasets)(WorkerResources()), JOB)
    while True:
        try:
            next(training)
        except StopIteration as end:
            outcome: Outcome = end.value
            assert outcome.status == "finished", outcome.message
            return outcome


# ---------------------------------------------------------------------------------------------------- kills


def kills(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train once alone and once under fire; compare."""
    with tempfile.TemporaryDirectory() as scratch:
        folder, cache = Path(scratch), arguments.cache or Path(scratch) / "cache"
        config = settings(arguments.epochs, arguments.checkpoint_every_s)
        from autokd.data import load_datasets

        prepare(config, load_datasets(config.data, cache), cache, seeds=())
        alone, killed = folder / "alone", folder / "killed"
        run_piece(arguments, cache, alone, None)
        pieces = 0
        began = time.monotonic()
        while not (killed / "end.json").exists():
            run_piece(arguments, cache, killed, arguments.every_s)
            pieces += 1
        seconds = time.monotonic() - began
        needed, computed = (len((each / "steps.log").read_text().splitlines()) for each in (alone, killed))
        ends = [json.loads((each / "end.json").read_text()) for each in (alone, killed)]
    return {
        "signal": arguments.signal,
        "every_s": arguments.every_s,
        "checkpoint_every_s": arguments.checkpoint_every_s,
        "kills": pieces - 1,
        "steps_needed": needed,
        "steps_computed": computed,
        "lost_share": round((computed - needed) / computed, 4),
        "equal_weights": ends[0]["weights"] == ends[1]["weights"],
        "equal_metrics": ends[0]["metrics"] == ends[1]["metrics"],
        "wall_s": round(seconds, 1),
    }


def run_piece(arguments: argparse.Namespace, cache: Path, folder: Path, kill_after_s: float | None) -> None:
    """Run the training as a process; kill it so many seconds after the first step that it does."""
    log = folder / "steps.log"
    before = log.stat().st_size if log.exists() else 0
    command = [sys.executable, __file__, "work", "--folder", str(folder), "--cache", str(cache)]
    command += ["--epochs", str(arguments.epochs), "--checkpoint-every-s", str(arguments.checkpoint_every_s)]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (log.exists() and log.stat().st_size > before):
        time.sleep(0.05)
    if kill_after_s is None:
        process.wait()
        return
    try:
        process.wait(kill_after_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.Signals[f"SIG{arguments.signal}"])
        process.wait()


# ----------------------------------------------------------------------------------------------------- cost


def cost(arguments: argparse.Namespace) -> dict[str, Any]:
    """Compare the processor's seconds of trainings with and without checkpoints, in turns."""
    torch.set_num_threads(1)
    from autokd.data import load_datasets

    with tempfile.TemporaryDirectory() as scratch:
        cache = arguments.cache or Path(scratch) / "cache"
        config = settings(arguments.epochs, None)
        datasets = load_datasets(config.data, cache)
        prepare(config, datasets, cache, seeds=())
        rows: list[dict[str, float]] = []
        for number in range(arguments.rounds):
            row: dict[str, float] = {}
            kinds = [("without", None), ("with", arguments.checkpoint_every_s)]
            for name, every_s in kinds if number % 2 else kinds[::-1]:
                written: list[float] = []
                spy(written)
                began, wall = time.process_time(), time.monotonic()
                train_once(settings(arguments.epochs, every_s), cache, Path(scratch) / name, datasets)
                row[f"{name}_cpu_s"] = round(time.process_time() - began, 3)
                row[f"{name}_wall_s"] = round(time.monotonic() - wall, 3)
                row[f"{name}_checkpoints"] = len(written)
            rows.append(row)
        ratios = [row["with_cpu_s"] / row["without_cpu_s"] for row in rows]
        return {
            "checkpoint_every_s": arguments.checkpoint_every_s,
            "rounds": rows,
            "median_ratio": round(statistics.median(ratios), 4),
            "states": [state_cost(*each, scratch=Path(scratch)) for each in STATES],
        }


_PLAIN_SAVE = CheckpointFile._save


def spy(written: list[float]) -> None:
    """Count checkpoints."""

    def save(self: CheckpointFile, snapshot: Any) -> None:
        written.append(time.monotonic())
        _PLAIN_SAVE(self, snapshot)

    CheckpointFile._save = save  # type: ignore[method-assign]


STATES = (("fcos", 16, (1, 1, 1, 1), 32), ("fcos", 64, (2, 2, 2, 2), 256), ("retinanet", 64, (3, 4, 6, 3), 256))
"""Architecture, width, blocks and pyramid's channels of students whose state is copied and written."""


def state_cost(
    architecture: str, width: int, blocks: tuple[int, ...], channels: int, scratch: Path
) -> dict[str, object]:
    """Measure the copying and the writing of a student's state with AdamW."""
    config = settings(1, None)
    section = config.student.model_copy(
        update={
            "architecture": architecture,
            "backbone": config.student.backbone.model_copy(update={"width": width, "blocks": blocks}),
            "fpn_channels": channels,
        }
    )
    student = build_detector(section, 80, (256, 256))
    rule = make_update_rule(student, None, config.full, torch.device("cpu"))
    assert isinstance(rule, StandardUpdate)
    for parameter in student.parameters():
        parameter.grad = torch.zeros_like(parameter)
    rule.optimizer.step()
    state = TrainingState(student, None, rule, None, torch.device("cpu"))
    copying, writing = [], []
    for _ in range(3):
        began = time.process_time()
        copied = state.snapshot()
        copying.append(time.process_time() - began)
        began = time.process_time()
        write_checkpoint(scratch / "state", "key", copied)
        writing.append(time.process_time() - began)
    copied_s, written_s = min(copying), min(writing)
    return {
        "student": f"{architecture}, width {width}, blocks {'-'.join(map(str, blocks))}, pyramid {channels}",
        "megabytes": round((scratch / "state").stat().st_size / 1e6, 1),
        "copied_cpu_s": round(copied_s, 4),
        "written_cpu_s": round(written_s, 4),
        "share_of_300_s": round((copied_s + written_s) / 300, 5),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("work", "kills", "cost"))
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--every-s", type=float, default=20.0)
    parser.add_argument("--checkpoint-every-s", type=float, default=300.0)
    parser.add_argument("--signal", choices=("KILL", "TERM"), default="KILL")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.what == "work":
        work(arguments)
        return
    found = {"kills": kills, "cost": cost}[arguments.what](arguments)
    found |= {"commit": current_commit(), "machine": platform.processor(), "torch": torch.__version__}
    print(json.dumps(found, indent=1))
    if arguments.out is not None:
        write_json_atomically(arguments.out, found)


if __name__ == "__main__":
    main()
