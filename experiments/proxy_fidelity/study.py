"""Measure how well proxies rank distillers as full training does, and at what cost.

    python experiments/proxy_fidelity/study.py work --minutes 30        # any number of processes, again and again
    python experiments/proxy_fidelity/study.py collect
    python experiments/proxy_fidelity/study.py draw

Run it at the repository's root. Truth is the val AP of full trainings: every preset with two kinds of weights on
photographs (on record in experiments/presets) or on generated images (``--truth shapes``: ``work`` trains them), or the
table of experiments/distiller_benchmark (``--truth table``).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from fidelity import report, table
from fidelity_figure import draw
from truths import Entry, preset_entries, shapes_entries, table_entries, table_proxies

from autokd.benchmark.markdown import write_table
from autokd.benchmark.recording.jobs import record_jobs
from autokd.benchmark.recording.scratch import Scratch
from autokd.benchmark.recording.settings import proxy_variants, read_config
from autokd.config import ResolvedConfig
from autokd.detectors import pair_of
from autokd.documents import load_document
from autokd.jobs import Job, JobId, Outcome, RecipeName

HERE = Path(__file__).parent
PAIRS = {
    "presets": HERE / "pair.yaml",
    "shapes": HERE / "shapes.yaml",
    "table": HERE.parent / "distiller_benchmark" / "space.yaml",
}
"""Truth -> the pair and the recipe by which it was made."""
OWN = "the table's own"
TRUTH_SEEDS = (0, 1)
METRICS = ("val_loss", "cka", "ap", "ap_50", "ap_worst_class")


def variant_configs(names: Sequence[str], truth: str) -> dict[str, ResolvedConfig]:
    """Return a configuration for each form of the proxy; all measure every metric."""
    base, forms = read_config(PAIRS[truth]), load_document(HERE / "variants.yaml").data
    unknown = set(names) - set(forms)
    if unknown:
        sys.exit(f"{', '.join(sorted(unknown))}: not in variants.yaml, which has {', '.join(forms)}.")
    return proxy_variants(base, {name: forms[name] for name in names or forms}, METRICS)


def entries_of(options: argparse.Namespace) -> list[Entry]:
    if options.truth == "shapes":
        presets = pair_of(read_config(PAIRS["shapes"])).supplied_presets()
        entries = shapes_entries(presets, _full(options).read()[0])
    else:
        entries = preset_entries() if options.truth == "presets" else table_entries()
    return entries[: options.count]


def _full(options: argparse.Namespace) -> Scratch:
    return Scratch(options.scratch / "full", read_config(PAIRS[options.truth]), ["full"])


def work(options: argparse.Namespace) -> None:
    ends = time.monotonic() + 60 * options.minutes
    entries = entries_of(options)
    if options.truth == "shapes":
        jobs = [_job(entry, seed, "full") for seed in TRUTH_SEEDS for entry in [None, *entries]]
        record_jobs(
            read_config(PAIRS["shapes"]), jobs, options.scratch / "full", options.cache_dir, minutes=options.minutes
        )
    for name, config in variant_configs(options.variants, options.truth).items():
        jobs = [_job(entry, seed) for seed in options.seeds for entry in [None, *entries]]
        left = (ends - time.monotonic()) / 60
        record_jobs(config, jobs, options.scratch / name, options.cache_dir, minutes=left)
    # What costs are compared with: a full training of the first entry, on the same machine.
    jobs = [_job(entries[0], 0, "full")]
    record_jobs(read_config(PAIRS[options.truth]), jobs, options.scratch / "full", options.cache_dir)


def _job(entry: Entry | None, seed: int, recipe: RecipeName = "proxy") -> Job:
    name = "none" if entry is None else entry.name.replace("-", "_")
    return Job(str(JobId(recipe, name, seed)), None if entry is None else entry.spec, recipe, seed)


def collect(options: argparse.Namespace) -> None:
    entries = [entry for entry in entries_of(options) if entry.truth]
    found: dict[str, Mapping[str, Outcome]] = {}
    commits: set[str] = set()
    machines: set[str] = set()
    for name in variant_configs(options.variants, options.truth):
        folder = options.scratch / name
        if folder.exists():
            found[name], its_commits, its_machines = Scratch(
                folder, variant_configs([name], options.truth)[name]
            ).read()
            commits, machines = commits | its_commits, machines | its_machines
    if options.truth == "table":
        found[OWN], full_seconds, about = table_proxies()
        commits, machines = commits | {*about.commits}, machines | {*about.machines}
    else:
        full_seconds = min(outcome.seconds for outcome in _full(options).read()[0].values())
    result = report(entries, found, full_seconds, options.seeds)
    result = {"truth": options.truth, "commits": sorted(commits), "machines": sorted(machines)} | result
    (HERE / f"{options.truth}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    write_table(HERE / "README.md", options.truth, table(result))
    plot(options)


def plot(options: argparse.Namespace) -> None:
    """Write the figure of what was collected."""
    result = json.loads((HERE / f"{options.truth}.json").read_text(encoding="utf-8"))
    draw(result).savefig(HERE / f"{options.truth}.svg", metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("command", choices=("work", "collect", "draw"))
    parser.add_argument("--variants", nargs="*", default=[])
    parser.add_argument("--truth", choices=tuple(PAIRS), default="presets")
    parser.add_argument("--count", type=int, default=None, help="the first so many entries")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--minutes", type=float, default=1e9)
    parser.add_argument("--scratch", type=Path, default=None, help="one for each truth")
    parser.add_argument("--cache-dir", type=Path, default=Path(".autokd_cache"))
    options = parser.parse_args()
    options.scratch = options.scratch or Path(f"runs/proxy_fidelity_{options.truth}")
    {"work": work, "collect": collect, "draw": plot}[options.command](options)


if __name__ == "__main__":
    main()
