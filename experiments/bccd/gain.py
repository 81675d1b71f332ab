"""Test AP of the searched distiller, of none and of every preset, each with its weights tuned by proxies too.

    python experiments/bccd/gain.py tune        # every preset at several gradient ratios, by proxies
    autokd search experiments/bccd/space.yaml --run-dir runs/bccd_gain
    python experiments/bccd/gain.py full        # every preset as tuned, five seeds, as the run trains none and its own
    python experiments/bccd/gain.py full --names combined
    python experiments/bccd/gain.py transfer    # the best of these distillers on another pair and other data
    python experiments/bccd/gain.py collect     # gain.json, and the tables of README.md

Run it at the repository's root, in any number of processes, again and again: each takes what no other holds.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from statistics import mean
from typing import Any

from autokd.benchmark.markdown import interval_text, markdown_table, mean_text, paired_gain, write_table
from autokd.benchmark.recording.jobs import record_jobs
from autokd.benchmark.recording.scratch import Scratch
from autokd.benchmark.recording.settings import read_config, read_data
from autokd.config import ResolvedConfig, load_config
from autokd.detectors import pair_of, resolve
from autokd.documents import dump_yaml
from autokd.jobs import NO_DISTILLATION, Job, JobId, Outcome, make_job
from autokd.presets import load_distiller, load_preset
from autokd.spec import DistillerSpec
from autokd.storage import StudyFacts, open_existing, read_record
from autokd.study.reward import Reward, reference_curve

HERE = Path(__file__).parent
SPACE = HERE / "space.yaml"
SCRATCH = Path("runs/bccd_gain_scratch")
RUN = Path("runs/bccd_gain")
"""The search's; its full trainings of none and of what it found are this comparison's."""
CACHE = Path(os.environ.get("AUTOKD_CACHE", ".autokd_cache"))
GRADIENT_RATIOS = (None, 3.0, 30.0, 300.0, 3000.0, 30000.0)
"""Gradient ratios shared by a preset's terms; None: the weights of its paper."""
LONG_PROXY = {"warm_start": None, "batch_size": 4, "epochs": 4, "weight_average": 0.95, "measure": "last_epoch",
              "reward": ["val_loss", "cka", "ap"]}  # fmt: skip
SHORT_PROXY = LONG_PROXY | {"epochs": 2, "of_epochs": 3}
"""By which all gradient ratios are tried; by the long one then the best KEPT of each preset."""
TUNED_BY = {"tune_short": SHORT_PROXY, "tune": LONG_PROXY}
KEPT = 2
SEARCHED_NAME = "searched"
BY_HAND_NAME = "combined"
SEEDS = (0, 1, 2, 3, 4)
NUM_LEADERS = 5
"""Presets that are transferred beside the searched one: the best in full on val."""


@cache
def presets() -> tuple[str, ...]:
    """Those that the pair can be trained with."""
    return pair_of(config_of("pair")).supplied_presets()


def at_gradient_ratio(name: str, gradient_ratio: float | None) -> DistillerSpec:
    spec = load_preset(name, pair_of(config_of("pair")).family)
    return spec if gradient_ratio is None else spec.with_gradient_ratio(gradient_ratio)


def labeled_at(name: str, gradient_ratio: float | None) -> str:
    return f"{name}@{gradient_ratio or 'published'}"


def _proxy_id(name: str, gradient_ratio: float | None) -> str:
    return str(JobId("proxy", labeled_at(name, gradient_ratio), 0))


# ---------------------------------------------------------------------------------------------- stages


def short_jobs() -> Iterator[Job]:
    """Every preset at every gradient ratio."""
    return tune_jobs(dict.fromkeys(presets(), GRADIENT_RATIOS))


def tune_jobs(gradient_ratios: Mapping[str, Sequence[float | None]]) -> Iterator[Job]:
    yield make_job(None, "proxy", 0)
    for name, its_gradient_ratios in gradient_ratios.items():
        for gradient_ratio in its_gradient_ratios:
            yield Job(_proxy_id(name, gradient_ratio), at_gradient_ratio(name, gradient_ratio), "proxy", 0)


def full_jobs(names: Sequence[str], seeds: Sequence[int]) -> Iterator[Job]:
    known, gradient_ratios = distillers(), tuned()
    for seed in seeds:
        for name in names:
            labeled = labeled_at(name, gradient_ratios[name]) if name in gradient_ratios else name
            yield Job(str(JobId("full", labeled, seed)), known[name], "full", seed)


def distillers() -> dict[str, DistillerSpec | None]:
    """Every entry of the comparison: presets as tuned, the searched one, and one made by hand."""
    entries: dict[str, DistillerSpec | None] = {NO_DISTILLATION: None}
    entries[BY_HAND_NAME] = load_distiller(str(HERE / f"{BY_HAND_NAME}.yaml"))
    if (RUN / "best_distiller.yaml").exists():
        entries[SEARCHED_NAME] = load_distiller(str(RUN / "best_distiller.yaml"))
    return entries | {name: at_gradient_ratio(name, gradient_ratio) for name, gradient_ratio in tuned().items()}


def of_the_run() -> dict[str, Outcome]:
    """Full trainings of none and of what the search found, as they are named here."""
    if not RUN.exists():
        return {}
    ours = {NO_DISTILLATION: NO_DISTILLATION}
    if (spec := distillers().get(SEARCHED_NAME)) is not None:
        ours[spec.digest] = SEARCHED_NAME
    found = {}
    for job_id, outcome in StudyFacts(open_existing(RUN)).job_outcomes().items():
        identity = JobId.parse(job_id)
        if identity.recipe == "full" and identity.digest in ours and identity.seed in SEEDS:
            found[str(replace(identity, digest=ours[identity.digest]))] = outcome
    return found


def tuned() -> dict[str, float | None]:
    """The gradient ratio at which the reward of each preset is the greatest, by the long proxy among the best by the
    short one."""
    found = best_gradient_ratios("tune", tune_jobs(best_gradient_ratios("tune_short", short_jobs(), KEPT)), 1)
    return {name: gradient_ratios[0] for name, gradient_ratios in found.items()}


def best_gradient_ratios(stage: str, jobs: Iterable[Job], count: int) -> dict[str, list[float | None]]:
    """Of each preset the ``count`` gradient ratios with the greatest reward in a stage that is done."""
    config, wanted = config_of("pair", stage), [job.id for job in jobs]
    outcomes = Scratch(SCRATCH / stage, config, ["proxy"]).read()[0]
    missing = [id_ for id_ in wanted if id_ not in outcomes]
    if missing:
        sys.exit(f"{stage}: {len(missing)} proxies are missing, {missing[0]} the first. Run: gain.py tune")
    none = outcomes[str(JobId("proxy", NO_DISTILLATION, 0))]
    finished = {job_id: outcomes[job_id] for job_id in wanted if outcomes[job_id].status == "finished"}
    reward = Reward(config.proxy.reward, reference_curve(none))
    reward = reward.calibrated(reward.gains(o.metrics, reward.num_epochs) for o in finished.values())

    def value(name: str, gradient_ratio: float | None) -> float:
        outcome = finished.get(_proxy_id(name, gradient_ratio))
        return -float("inf") if outcome is None else reward.value(outcome.metrics, reward.num_epochs)

    return {n: sorted(GRADIENT_RATIOS, key=lambda gradient_ratio: -value(n, gradient_ratio))[:count] for n in presets()}


def leaders() -> list[str]:
    """None, the searched one, and the presets with the best val AP in full."""
    rows = _rows(Scratch(SCRATCH / "full", config_of("pair"), ["full"]).read()[0])
    val = {name: mean(by_seed.values()) for name, by_seed in _by_seed(rows, "val_ap").items() if name in presets()}
    return [NO_DISTILLATION, SEARCHED_NAME, *sorted(val, key=lambda name: -val[name])[:NUM_LEADERS]]


def config_of(pair: str, stage: str = "") -> ResolvedConfig:
    """pair: the search's own; retinanet: another student; shapes: other data, with a teacher of their own; started: the
    pair with a student whose boxes start at one stride (``../box_init``)."""
    read_config(SPACE)  # speaks of what is wrong with the file itself
    data = read_data(SPACE)
    del data["space"]  # what is trained here is named, not searched
    if pair == "shapes":
        data["data"] = {"format": "shapes"}
        data["teacher"]["train"] = {"epochs": 30, "learning_rate": 0.004}
    if stage in TUNED_BY:
        data["proxy"] = TUNED_BY[stage]
    if pair == "retinanet":
        data["student"]["architecture"] = "retinanet"
    if pair == "started":
        data["student"]["box_init"] = 1
    return resolve(load_config(dump_yaml(data)))


# --------------------------------------------------------------------------------------------- collect


STAGES = {"full": "pair", "retinanet": "retinanet", "shapes": "shapes", "started": "started"}
"""Folder of the trainings -> their pair; also the names of README.md's tables."""
TITLES = {"full": "FCOS on blood cells", "retinanet": "RetinaNet student", "shapes": "generated images",
          "started": "FCOS, box_init: 1"}  # fmt: skip


def collect() -> None:
    # matplotlib is no requirement of AutoKD, and no other command needs it.
    from gain_figure import draw

    gradient_ratios = tuned()
    result: dict[str, Any] = {"gradient_ratios": gradient_ratios, "searches": searches()}
    for stage, pair in STAGES.items():
        if (SCRATCH / stage).exists():
            outcomes, commits, machines = Scratch(SCRATCH / stage, config_of(pair), ["full"]).read()
            rows = _rows(outcomes | (of_the_run() if stage == "full" else {}))
            result[stage] = {"commits": sorted(commits), "machines": sorted(machines), "rows": rows}
            lines = table(rows, gradient_ratios)
            write_table(HERE / "README.md", stage, lines)
            print("\n".join([stage, *lines]))
    (HERE / "gain.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    draw(result, TITLES).savefig(HERE / "gain.svg", metadata={"Date": None})


def searches() -> list[dict[str, Any]]:
    """Every search that there is a run of: how many trials, and what it trained in full; ``trial_ap``: AP in the trial,
    on val."""
    found = []
    for run in sorted(path for path in RUN.parent.glob(f"{RUN.name}*") if path != SCRATCH):
        study = open_existing(run)
        tried = {record.digest: record for record in map(read_record, study.trials) if record.outcome is not None}
        about = {
            d: {"formula": r.formula, "trial_ap": r.outcome and r.outcome.metrics.get("ap")} for d, r in tried.items()
        }
        rows = _rows(
            {
                job_id: o
                for job_id, o in StudyFacts(study).job_outcomes().items()
                if JobId.parse(job_id).recipe == "full"
            }
        )
        found.append(
            {
                "run": run.name,
                "trials": sum(trial.state.name == "COMPLETE" for trial in study.trials),
                "full": [row | about[row["name"]] for row in rows if row["name"] in about],
            }
        )
    return found


def table(rows: Sequence[Mapping[str, Any]], gradient_ratios: Mapping[str, float | None]) -> list[str]:
    """Return the table of one pair, the best on test first."""
    val, test = (_by_seed(rows, metric) for metric in ("val_ap", "test_ap"))
    cells = []
    for name in sorted(test, key=lambda name: -mean(test[name].values())):
        gradient_ratio = str(gradient_ratios[name] or "published") if name in gradient_ratios else ""
        gain = "" if name == NO_DISTILLATION else _difference(test[name], test.get(NO_DISTILLATION, {}))
        less = "" if name == SEARCHED_NAME else _difference(test.get(SEARCHED_NAME, {}), test[name])
        num_seeds = len(test[name])
        scores = mean_text(val[name].values(), 4), f"{mean_text(test[name].values(), 4)} ({num_seeds})"
        cells.append((name, gradient_ratio, *scores, gain, less))
    head = ("distiller", "gradient ratio", "val AP", "test AP", "gain on none [95%]", "searched, less it [95%]")
    failed = [f"{row['name']} (seed {row['seed']}: {row['cause']})" for row in rows if row["status"] != "finished"]
    if failed:
        cells.append((f"not trained: {', '.join(failed)}", *[""] * (len(head) - 1)))
    return markdown_table(head, cells)


def _by_seed(rows: Sequence[Mapping[str, Any]], metric: str) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = {}
    for row in rows:
        if metric in row:
            found.setdefault(row["name"], {})[row["seed"]] = row[metric]
    return found


def _difference(ours: Mapping[int, float], theirs: Mapping[int, float]) -> str:
    """Return the mean difference of equal seeds with Student's 95% interval; empty if fewer than two are shared."""
    return interval_text(paired_gain(ours, theirs), 4)


def _rows(outcomes: dict[str, Outcome]) -> list[dict[str, Any]]:
    rows = []
    for job_id, outcome in sorted(outcomes.items()):
        identity = JobId.parse(job_id)
        name = identity.digest.partition("@")[0]
        metrics = {k: v for k, v in outcome.metrics.items() if k.partition("/")[0] in ("val_ap", "test_ap")}
        rows.append({"name": name, "seed": identity.seed, "status": outcome.status, "cause": outcome.cause} | metrics)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("command", choices=("tune", "full", "transfer", "collect"))
    parser.add_argument("--names", nargs="*", default=[], help="of the comparison; left out: all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[])
    parser.add_argument("--minutes", type=float, default=1e9)
    options = parser.parse_args()
    if options.command == "tune":
        short = list(short_jobs())
        record_jobs(config_of("pair", "tune_short"), short, SCRATCH / "tune_short", CACHE, minutes=options.minutes)
        kept = best_gradient_ratios("tune_short", short, KEPT)
        record_jobs(config_of("pair", "tune"), list(tune_jobs(kept)), SCRATCH / "tune", CACHE, minutes=options.minutes)
    elif options.command == "full":
        jobs = list(full_jobs(options.names or presets(), options.seeds or SEEDS))
        record_jobs(config_of("pair"), jobs, SCRATCH / "full", CACHE, minutes=options.minutes)
    elif options.command == "transfer":
        jobs = list(full_jobs(options.names or leaders(), options.seeds or SEEDS))
        for pair in ("retinanet", "shapes", "started"):
            record_jobs(config_of(pair), jobs, SCRATCH / pair, CACHE, minutes=options.minutes)
    else:
        collect()


if __name__ == "__main__":
    main()
