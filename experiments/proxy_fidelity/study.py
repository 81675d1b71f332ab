"""How well proxies rank distillers as full training does, and at what cost.

    python experiments/proxy_fidelity/study.py work --minutes 30        # any number of processes, again and again
    python experiments/proxy_fidelity/study.py collect

Run it at the repository's root. Truth is the val AP of full trainings that are on record: every preset with two kinds
of weights (experiments/presets), or the table of experiments/distiller_benchmark (``--truth table``).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from fidelity import report, table
from recorded.readme import write_table
from recorded.scratch import Scratch
from recorded.trainer import read_config
from recorded.work import record
from truths import Entry, preset_entries, table_entries, table_proxies

from autokd.config import RunConfig
from autokd.documents import load_document
from autokd.outcomes import Job, Outcome

PAIRS = {"presets": HERE / "pair.yaml", "table": HERE.parent / "distiller_benchmark" / "space.yaml"}
"""Truth -> the pair and the recipe by which it was made."""
OWN = "the table's own"
METRICS = ("val_loss", "cka", "ap", "ap_50", "ap_worst_class")


def variant_configs(names: Sequence[str], truth: str) -> dict[str, RunConfig]:
    """A configuration for each form of the proxy; all measure every metric."""
    base, forms = read_config(PAIRS[truth]), load_document(HERE / "variants.yaml").data
    unknown = set(names) - set(forms)
    if unknown:
        sys.exit(f"{', '.join(sorted(unknown))}: not in variants.yaml, which has {', '.join(forms)}.")
    shared = base.full.model_dump(include=type(base.proxy).model_fields.keys() & type(base.full).model_fields.keys())
    shared = {key: value for key, value in shared.items() if key != "timeout_s"}
    return {
        name: base.model_copy(
            update={"proxy": type(base.proxy).model_validate(shared | {"reward": METRICS} | dict(forms[name]))}
        )
        for name in names or forms
    }


def entries_of(truth: str, count: int | None) -> list[Entry]:
    entries = preset_entries() if truth == "presets" else table_entries()
    return entries[:count]


def work(options: argparse.Namespace) -> None:
    ends = time.monotonic() + 60 * options.minutes
    entries = entries_of(options.truth, options.count)
    for name, config in variant_configs(options.variants, options.truth).items():
        jobs = [_job(entry, seed) for seed in options.seeds for entry in [None, *entries]]
        left = (ends - time.monotonic()) / 60
        record(config, jobs, options.scratch / name, options.cache_dir, minutes=left)
    # What costs are compared with: a full training of the first entry, on the same machine.
    first = entries_of(options.truth, 1)[0]
    jobs = [Job(f"full-{first.name}-s0", first.spec, "full", 0)]
    record(read_config(PAIRS[options.truth]), jobs, options.scratch / "full", options.cache_dir)


def _job(entry: Entry | None, seed: int) -> Job:
    name = "none" if entry is None else entry.name.replace("-", "_")
    return Job(f"proxy-{name}-s{seed}", None if entry is None else entry.spec, "proxy", seed)


def collect(options: argparse.Namespace) -> None:
    entries = entries_of(options.truth, options.count)
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
        full = Scratch(options.scratch / "full", read_config(PAIRS[options.truth])).read()[0]
        full_seconds = min(outcome.seconds for outcome in full.values())
    result = report(entries, found, full_seconds, options.seeds)
    result = {"truth": options.truth, "commits": sorted(commits), "machines": sorted(machines)} | result
    (HERE / f"{options.truth}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    write_table(HERE / "README.md", options.truth, table(result))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("command", choices=("work", "collect"))
    parser.add_argument("--variants", nargs="*", default=[])
    parser.add_argument("--truth", choices=("presets", "table"), default="presets")
    parser.add_argument("--count", type=int, default=None, help="the first so many entries")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--minutes", type=float, default=1e9)
    parser.add_argument("--scratch", type=Path, default=None, help="one for each truth")
    parser.add_argument("--cache-dir", type=Path, default=Path(".autokd_cache"))
    options = parser.parse_args()
    options.scratch = options.scratch or Path(f"runs/proxy_fidelity_{options.truth}")
    {"work": work, "collect": collect}[options.command](options)


if __name__ == "__main__":
    main()
