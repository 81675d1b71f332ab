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
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "distiller_benchmark")]

from fidelity import report, table  # noqa: E402
from recording import Scratch  # noqa: E402
from trainer import Trainer, machine_name, read_config  # noqa: E402
from truths import Entry, preset_entries, table_entries, table_proxies  # noqa: E402

from autokd.benchmark import current_commit  # noqa: E402
from autokd.config import RunConfig  # noqa: E402
from autokd.documents import load_document  # noqa: E402
from autokd.outcomes import Job, Outcome  # noqa: E402

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
        scratch = Scratch(options.scratch / name, config, ["proxy"])
        about = {"commit": current_commit(), "machine": machine_name("cpu"), "variant": name}
        jobs = [_job(entry, seed) for seed in options.seeds for entry in [None, *entries]]
        if {job.id for job in jobs} <= scratch.finished_ids():
            continue
        with tempfile.TemporaryDirectory() as files:
            trainer = Trainer(config, options.cache_dir, "cpu", Path(files))
            for job in jobs:
                if time.monotonic() > ends:
                    return
                with scratch.claim(job) as is_ours:
                    if is_ours:
                        scratch.save(replace(trainer.run(job), artifacts={}), about)
        print(f"{name}: {len(jobs)} proxies, {time.strftime('%H:%M:%S')}", flush=True)
    _time_full_training(options)


def _job(entry: Entry | None, seed: int) -> Job:
    name = "none" if entry is None else entry.name.replace("-", "_")
    return Job(f"proxy-{name}-s{seed}", None if entry is None else entry.spec, "proxy", seed)


def _time_full_training(options: argparse.Namespace) -> None:
    """What costs are compared with: a full training of the first entry, on the same machine."""
    config = read_config(PAIRS[options.truth])
    scratch = Scratch(options.scratch / "full", config, ["full"])
    entry = entries_of(options.truth, 1)[0]
    with scratch.claim(job := Job(f"full-{entry.name}-s0", entry.spec, "full", 0)) as is_ours:
        if is_ours:
            with tempfile.TemporaryDirectory() as files:
                outcome = Trainer(config, options.cache_dir, "cpu", Path(files)).run(job)
            scratch.save(replace(outcome, artifacts={}), {"commit": current_commit(), "machine": machine_name("cpu")})


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
        found[OWN], full_seconds = table_proxies()
    else:
        full = Scratch(options.scratch / "full", read_config(PAIRS[options.truth])).read()[0]
        full_seconds = min(outcome.seconds for outcome in full.values())
    result = report(entries, found, full_seconds, options.seeds)
    result = {"truth": options.truth, "commits": sorted(commits), "machines": sorted(machines)} | result
    (HERE / f"{options.truth}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    readme = HERE / "README.md"
    before, begin, rest = readme.read_text(encoding="utf-8").partition(f"<!-- {options.truth} -->\n")
    after = rest[rest.index("<!-- end -->") :]
    readme.write_text(before + begin + "\n".join(table(result)) + "\n" + after, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("command", choices=("work", "collect"))
    parser.add_argument("--variants", nargs="*", default=[])
    parser.add_argument("--truth", choices=("presets", "table"), default="presets")
    parser.add_argument("--count", type=int, default=None, help="the first so many entries")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--minutes", type=float, default=1e9)
    parser.add_argument("--scratch", type=Path, default=Path("runs/proxy_fidelity"))
    parser.add_argument("--cache-dir", type=Path, default=Path(".autokd_cache"))
    options = parser.parse_args()
    {"work": work, "collect": collect}[options.command](options)


if __name__ == "__main__":
    main()
