"""Synthetic tables: outcomes as a function of a spec's decisions plus noise, in the shape of recorded ones."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from autokd.benchmark import BenchmarkRow, DistillerBenchmark, make_header
from autokd.config import ResolvedConfig, complete_recipes, load_config
from autokd.jobs import Outcome, Report
from autokd.space import enumerate_specs
from autokd.spec import DistillerSpec

EXPERIMENT = Path(__file__).parents[2] / "experiments" / "distiller_benchmark"

SECTIONS = """
name: synthetic
data: {format: shapes, image_size_px: [64, 64], num_train: 8, num_val: 6, num_test: 6}
teacher: {backbone: {width: 8}, train: {epochs: 1}}
student: {backbone: {width: 8}}
proxy: {epochs: 2, reward: [val_loss, cka, ap]}
full: {epochs: 4}
"""
SMALL = (
    SECTIONS
    + """
space:
  terms: 1
  sources: [feature_map, foreground, background]
  transforms: {normalize: [none, standardize]}
  distances: [l1, l2]
  gradient_ratio: [10, 40]
"""
)
LARGE = (
    SECTIONS
    + """
space:
  terms: 1
  sources: [feature_map, foreground, background, instance]
  transforms:
    attention: [none, spatial_attention, channel_attention]
    normalize: [none, standardize, l2_channels]
  distances: [l1, l2, cosine, pearson]
  gradient_ratio: [10, 20, 40, 100]
"""
)


def _effect(name: str) -> float:
    """A fixed number in [-1, 1] for a decision."""
    return int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) / 0x7FFFFFFF - 1


def true_gain(spec: DistillerSpec | None) -> float:
    """AP above none: a sum over the decisions, the gradient ratio among them."""
    if spec is None:
        return 0.0
    [term] = spec.terms
    names = [term.source.name, *(step.name for step in term.transforms), term.distance.name, f"{term.weight.value:g}"]
    return 0.01 * sum(map(_effect, names))


def outcomes_of(spec: DistillerSpec | None, recipe: str, seed: int, num_epochs: int) -> Outcome:
    """Full trainings take about 30 s, proxy trainings about 6; metrics are the gain with noise."""
    key = f"{spec.digest if spec else 'none'}-{recipe}-{seed}"
    rng = np.random.default_rng(int(hashlib.sha256(key.encode()).hexdigest()[:8], 16))
    gain = true_gain(spec)
    reports = []
    for epoch in range(1, num_epochs + 1):
        seconds = epoch * (1.5 + 0.3 * rng.uniform())
        metrics = {"train_loss": 2 / epoch, "train_seconds": 0.8 * seconds}
        if recipe == "proxy":
            metrics |= {
                "val_loss": 1.5 - 2 * gain + 0.01 * rng.normal(),
                "cka": 0.5 + gain + 0.003 * rng.normal(),
                "ap": 0.3 + gain + 0.01 * rng.normal(),
            }
        reports.append(Report("", epoch, metrics, seconds))
    metrics = dict(reports[-1].metrics)
    if recipe == "full":
        ap = 0.35 + gain + 0.002 * rng.normal()
        metrics |= {"val_ap": ap, "test_ap": ap - 0.02, "val_loss": 1.2 - gain, "cka": 0.6 + gain}
    return Outcome(
        "", "finished", metrics, reports=tuple(reports), seconds=reports[-1].seconds + 0.5, worker="synthetic"
    )


def synthetic_row(spec: DistillerSpec | None, config: ResolvedConfig, seeds: tuple[int, ...] = (0,)) -> BenchmarkRow:
    full = {seed: outcomes_of(spec, "full", seed, config.full.epochs) for seed in seeds}
    return BenchmarkRow(spec, full, {seed: outcomes_of(spec, "proxy", seed, config.proxy.epochs) for seed in seeds})


def synthetic(text: str = SMALL, *, seeds: tuple[int, ...] = (0, 1), leave_out: int = 0) -> DistillerBenchmark:
    """A table of all specs of a space, but for the last ``leave_out``."""
    config = complete_recipes(load_config(text))
    specs = list(enumerate_specs(config.space))
    header = make_header(config, commits=["0123456789ab"], machines=["synthetic"])
    rows = [synthetic_row(spec, config, seeds) for spec in [None, *specs[: len(specs) - leave_out]]]
    return DistillerBenchmark(header, rows)
