"""Count the FCOS students in which a side of all boxes stays at 0, from torchvision's start and ``box_init: 1``.

    python experiments/box_init/measure.py

Run it at the repository's root, AUTOKD_BCCD naming the photographs' folder if it lies elsewhere. Students without
distillation are trained by the search's own evaluator, two at a time; in each step the share of cells is counted whose
distance to a side is 0.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torchvision.models.detection.fcos import FCOSRegressionHead

from autokd.benchmark import current_commit
from autokd.benchmark.markdown import markdown_table, write_table
from autokd.benchmark.recording.machine import machine_name
from autokd.benchmark.recording.settings import proxy_variants, read_config
from autokd.config import ResolvedConfig
from autokd.data import load_datasets
from autokd.documents import load_document
from autokd.jobs import RecipeName, WorkerResources, make_job
from autokd.runtime import run_guarded
from autokd.training import TrainingEvaluatorFactory, prepare

HERE = Path(__file__).parent
PROXIES = HERE.parent / "proxy_fidelity"
"""Folder of the forms of the proxy (``variants.yaml``) and of their pair (``pair.yaml``)."""
METRICS = ("val_loss", "cka", "ap", "ap_50", "ap_worst_class")
CACHE = Path(os.environ.get("AUTOKD_CACHE", ".autokd_cache"))
SIDES = ("left", "top", "right", "bottom")
STARTS = (0.0, 1.0)
IS_LOST = 0.99
"""Share of cells at 0 from which a side counts as lost, if it is so until the end."""
CASES: dict[str, tuple[str, RecipeName, int]] = {
    "proxy, half of the images": ("batch_4_half_random", "proxy", 4),
    "proxy, 90 x 120 pixels": ("batch_4_small", "proxy", 4),
    "proxy, whole": ("batch_4_cut", "proxy", 4),
    "full, the table's": ("distiller_benchmark", "full", 8),
    "full, the gain's": ("bccd", "full", 4),
}
"""Name -> form of the proxy or folder of the config file, recipe, number of seeds."""


def config_of(source: str, recipe: RecipeName, start: float) -> ResolvedConfig:
    if recipe == "proxy":
        forms = load_document(PROXIES / "variants.yaml").data
        config = proxy_variants(read_config(PROXIES / "pair.yaml"), {source: forms[source]}, METRICS)[source]
    else:
        config = read_config(HERE.parent / source / "space.yaml")
    return config.model_copy(update={"student": config.student.model_copy(update={"box_init": start})})


@contextmanager
def counted_sides() -> Iterator[list[list[float]]]:
    """Yield a list to which every training step of an FCOS head adds the share of cells at 0 of each side.

    torchvision has no hook between the head's ReLU and its losses, so the block replaces the head's ``forward``.
    """
    shares: list[list[float]] = []
    forward = FCOSRegressionHead.forward

    def counting(self: FCOSRegressionHead, maps: Any) -> Any:
        distances_BA4, centerness = forward(self, maps)
        if self.training:
            shares.append((distances_BA4 <= 0).float().mean((0, 1)).tolist())
        return distances_BA4, centerness

    FCOSRegressionHead.forward = counting  # type: ignore[method-assign]
    try:
        yield shares
    finally:
        FCOSRegressionHead.forward = forward  # type: ignore[method-assign]


def measured(name: str, start: float, seed: int) -> dict[str, Any]:
    """Train once; return the sides that are lost at the end and since which step, and the val AP."""
    torch.set_num_threads(1)
    source, recipe, _ = CASES[name]
    config = config_of(source, recipe, start)
    datasets = load_datasets(config.data, CACHE)
    prepare(config, datasets, CACHE, seeds=(seed,), device="cpu")
    with tempfile.TemporaryDirectory() as files, counted_sides() as shares:
        evaluator = TrainingEvaluatorFactory(config, CACHE, Path(files), datasets)(WorkerResources(1, "cpu", 0.0))
        training = run_guarded(evaluator, make_job(None, recipe, seed))
        while True:
            try:
                next(training)
            except StopIteration as end:
                outcome = end.value
                break
    lost = {side: since for i, side in enumerate(SIDES) if (since := lost_since([s[i] for s in shares])) < len(shares)}
    ap = outcome.metrics["ap" if recipe == "proxy" else "val_ap"]
    return {"case": name, "box_init": start, "seed": seed, "steps": len(shares), "lost_since_step": lost, "val_ap": ap}


def lost_since(shares: list[float]) -> int:
    """Return the first step from which a side is at 0 until the end; the number of steps if there is none."""
    living = [step for step, share in enumerate(shares) if share < IS_LOST]
    return living[-1] + 1 if living else 0


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Return, for each case and start, the trainings that lost a side and the val AP of each seed."""
    cells = []
    for name in CASES:
        for start in STARTS:
            ours = [row for row in rows if (row["case"], row["box_init"]) == (name, start)]
            aps = ", ".join(f"**{r['val_ap']:.3f}**" if r["lost_since_step"] else f"{r['val_ap']:.3f}" for r in ours)
            lost = sum(bool(row["lost_since_step"]) for row in ours)
            cells.append((name, f"{start:g}", f"{lost} of {len(ours)}", aps))
    return markdown_table(("training", "box_init", "lost a side", "val AP, seed by seed"), cells)


def main() -> None:
    asked = [(name, start, seed) for name, (_, _, n) in CASES.items() for seed in range(n) for start in STARTS]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        rows = list(pool.map(measured, *zip(*asked, strict=True)))
    about = {"commit": current_commit(), "machine": machine_name("cpu")}
    (HERE / "box_init.json").write_text(json.dumps(about | {"rows": rows}, indent=1) + "\n", encoding="utf-8")
    write_table(HERE / "README.md", "sides", table(rows))


if __name__ == "__main__":
    main()
