"""Writes the figures of ``docs/evidence.md`` and of the README from the recorded files of ``experiments/``.

``python docs/hooks/evidence.py`` at the repository's root writes both anew; ``tests/docs/test_evidence.py`` keeps them
so. A figure has no other source: the templates beside this file hold sentences, and this file the recorded files'
places and the arithmetic.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import jinja2

from autokd.benchmark import BenchmarkRow, load_benchmark
from autokd.benchmark.markdown import paired_gain, write_table

ROOT = Path(__file__).parents[2]
EXPERIMENTS = ROOT / "experiments"
PAGE = ROOT / "docs" / "evidence.md"
FRONT = ROOT / "README.md"

APs = dict[str, dict[int, float]]
"""Distiller -> seed -> test AP."""


def page() -> str:
    """Return docs/evidence.md."""
    return _rendered("evidence.md.jinja")


def front() -> dict[str, list[str]]:
    """Return the lines of the README's two blocks by their names: the claim at its head, and its results."""
    return {name: _rendered(f"{name}.md.jinja").splitlines() for name in ("claim", "results")}


def _rendered(template: str) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**figures())


def figures() -> dict[str, Any]:
    """Return every figure by the name that the templates use."""
    return {
        "bccd": _bccd(),
        "samplers": _samplers(),
        "proxies": _proxies(),
        "halving": _halving(),
        "box_init": _box_init(),
        "mmdet": _mmdet(),
        "presets": _presets(),
        "quickstart": _quickstart(),
        "pairs": _pairs(),
        "pretrained": _pretrained(),
        "costs": _costs(),
    }


# ------------------------------------------------------------------------------------------------ texts of numbers


def points(value: float, digits: int = 1) -> str:
    """Return an AP of 0 to 1 in points of 0 to 100, without a minus sign before a zero."""
    return f"{round(100 * value, digits) + 0:.{digits}f}"


def interval(ours: Mapping[int, float], theirs: Mapping[int, float]) -> dict[str, str]:
    """Return the mean gain in points and the ends of its 95% interval (Student's t over equal seeds)."""
    gain = paired_gain(ours, theirs)
    assert gain is not None, "recorded with equal seeds"
    assert gain.low is not None, "recorded with two seeds or more"
    assert gain.high is not None
    return {"mean": points(gain.mean), "low": points(gain.low), "high": points(gain.high), "seeds": str(gain.count)}


def tau(value: float) -> str:
    """Return a Kendall's tau as ``.72``."""
    return f"{value:.2f}".removeprefix("0")


def _read(path: str) -> Any:
    return json.loads((EXPERIMENTS / path).read_text(encoding="utf-8"))


def _by_seed(rows: Iterable[Mapping[str, Any]]) -> APs:
    """Return the test APs of trainings that are listed with name, seed and AP (or metrics)."""
    found: APs = defaultdict(dict)
    for row in rows:
        if row["status"] == "finished":
            found[row["name"]][row["seed"]] = row["metrics"]["test_ap"] if "metrics" in row else row["test_ap"]
    return found


# -------------------------------------------------------------------------------------------------- the experiments


def _bccd() -> dict[str, Any]:
    recorded = _read("bccd/gain.json")
    full = _by_seed(recorded["full"]["rows"])
    presets = {name: seeds for name, seeds in full.items() if name not in ("searched", "none", "combined")}
    most_seeds = max(len(seeds) for seeds in presets.values())
    best = max((n for n in presets if len(presets[n]) == most_seeds), key=lambda name: fmean(presets[name].values()))
    transfer = {pair: _by_seed(recorded[pair]["rows"]) for pair in ("retinanet", "shapes")}
    return {
        "over_none": interval(full["searched"], full["none"]),
        "best_preset": best,
        "over_best": interval(full["searched"], full[best]),
        "presets": str(len(presets)),
        "transfer": {pair: interval(found["searched"], found["none"]) for pair, found in transfer.items()},
    }


def _samplers() -> dict[str, Any]:
    recorded = _read("distiller_benchmark/comparison.json")
    trials: dict[str, dict[str, str]] = defaultdict(dict)
    for row in recorded["rows"]:
        median = row["trials_full"]
        low, high = median["median_95"]
        trials[f"workers_{row['workers']}"][row["sampler"]] = f"{median['median']:g} [{low:g}, {high:g}]"
    return {"specs": str(recorded["table"]["specs"]), **trials}


def _proxies() -> dict[str, Any]:
    table, presets = _read("proxy_fidelity/table.json"), _read("proxy_fidelity/presets.json")
    reward = "parts of val_loss + cka + ap"
    rows = [{"cost": tau(row["cost"]), "tau": tau(row["tau"][reward]["all"])} for row in table["variants"]]
    single = [
        row
        for row in presets["variants"]
        if row["variant"] == "batch_4" and row["epoch"] == 2 and len(row["seeds"]) == 1
    ]
    return {
        "short": rows[0],
        "long": rows[-1],
        "ceiling": tau(table["ceiling"]["all"]),
        "photographs": {
            "tau": tau(fmean(row["tau"][reward]["all"] for row in single)),
            "cost": tau(fmean(row["cost"] for row in single)),
            "ceiling": tau(presets["ceiling"]["all"]),
            "seeds": str(len(single)),
        },
    }


def _halving() -> dict[str, Any]:
    rows = {
        row["workers"]: row for row in _read("distiller_benchmark/pruning.json")["rows"] if row["pruner"] == "halving"
    }
    return {
        f"workers_{workers}": {
            "saved": f"{100 * (1 - row['hours_ratio']['mean']):.0f}",
            "lost": points(-row["gain_difference"]["mean"], 2),
        }
        for workers, row in rows.items()
    }


def _box_init() -> dict[str, str]:
    rows = _read("box_init/box_init.json")["rows"]
    by_start = {
        start: [bool(row["lost_since_step"]) for row in rows if row["box_init"] == start] for start in (0.0, 1.0)
    }
    return {
        "trainings": str(len(by_start[0.0])),
        "lost_without": str(sum(by_start[0.0])),
        "lost_with": str(sum(by_start[1.0])),
    }


def _mmdet() -> dict[str, str]:
    entries = {entry["name"]: entry for entry in _read("mmdet_bccd/longer/results.json")["entries"]}
    none, searched = (dict(zip(entries[n]["seeds"], entries[n]["test_ap"])) for n in ("none", "searched"))
    return {"by_seed": " and ".join(f"{100 * (searched[seed] - none[seed]):+.1f}" for seed in none)}


def _presets() -> dict[str, str]:
    full = _by_seed(_read("presets/result.json"))
    gains = {
        name: gain.mean
        for name in full
        if name != "none" and (gain := paired_gain(full[name], full["none"])) is not None
    }
    best, worst = max(gains, key=lambda n: gains[n]), min(gains, key=lambda n: gains[n])
    return {
        "rows": str(len(gains)),
        "above": str(sum(value > 0 for value in gains.values())),
        "best": best.replace("@", " at "),
        "best_gain": points(gains[best]),
        "worst": worst.replace("@", " at "),
        "worst_gain": points(gains[worst]),
    }


def _quickstart() -> dict[str, str]:
    recorded = _read("quickstart/results.json")
    entries = {entry["name"]: entry for entry in recorded["entries"]}
    aps = {name: dict(zip(entry["seeds"], entry["test_ap"])) for name, entry in entries.items()}
    return {
        "none": points(fmean(aps["none"].values())),
        "searched": points(fmean(aps["searched"].values())),
        "teacher": points(recorded["teacher"]["test_ap"]),
        **interval(aps["searched"], aps["none"]),
    }


def _pairs() -> dict[str, str]:
    report = _read("pairs/strategies.json")
    gains: dict[str, list[float]] = defaultdict(list)
    for path in sorted((EXPERIMENTS / "pairs" / "records").glob("*.jsonl.gz")):
        table = load_benchmark(path)
        for row in table:
            gains[row.spec.name].append(row.gain(table.none, "test_ap"))
    num_pairs = len(report["distillers"])
    means = {name: fmean(values) for name, values in gains.items() if len(values) == num_pairs}
    best = max(means, key=lambda name: means[name])
    at_ten = {name: fmean(of_one["10"].values()) for name, of_one in report["gains"].items()}
    return {
        "pairs": str(num_pairs),
        "candidates": f"{min(report['distillers'].values())} or {max(report['distillers'].values())}",
        "best": best,
        "best_gain": points(means[best]),
        "default": points(at_ten["budget"]),
        "over_best": points(at_ten["budget"] - means[best]),
        "asha": points(at_ten["ASHA"]),
        "hindsight": points(fmean(report["best preset in hindsight"].values())),
    }


def _pretrained() -> dict[str, dict[str, str]]:
    found = {}
    for name in ("fruit", "okra"):
        ours, theirs = (
            load_benchmark(EXPERIMENTS / "pretrained" / "records" / f"{name}_{start}.jsonl.gz")
            for start in ("pretrained", "from_scratch")
        )
        rows = [next(row for row in table if row.spec.name == "fitnet@300") for table in (ours, theirs)]
        found[name] = interval(*(_of_row(row) for row in rows))
        found[f"{name}_none"] = interval(_of_row(ours.none), _of_row(theirs.none))
    return found


def _of_row(row: BenchmarkRow) -> dict[int, float]:
    return {seed: outcome.metrics["test_ap"] for seed, outcome in row.full.items() if outcome.status == "finished"}


def _costs() -> dict[str, str]:
    step, ray = _read("step_overhead/result.json")["ratio_to_none"], _read("orchestration/result.json")
    asks = _read("sampler_overhead/result.json")
    kill, prototypes = _read("preemption/kill.json"), _read("prototypes/result.json")["clustered"]
    return {
        "cached": f"{step['cached']['median']:.2f}",
        "live": f"{step['live']['median']:.2f}",
        "orchestration": f"{100 * ray['ratio_for_40_trials_of_20_s_with_start_and_end']:.1f}",
        "ask_ms": f"{asks['milliseconds']['mcts']['ask']:.0f}",
        "ask_tpe_ms": f"{asks['milliseconds']['tpe, multivariate']['ask']:.0f}",
        "study_trials": f"{asks['trials']:,}",
        "kills": str(kill["kills"]),
        "lost": f"{100 * kill['lost_share']:.1f}",
        "prototypes": f"{prototypes['ratio_wall_at_equal_steps']['median']:.0f}",
        "terms": f"{_read('vocabulary/result.json')['feature_terms']['well_typed_and_distinct']:,}",
    }


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    for name, lines in front().items():
        write_table(FRONT, name, lines)
