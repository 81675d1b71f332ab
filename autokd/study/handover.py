"""The end of a run: weights, distiller, results and report, written into the run directory."""

from __future__ import annotations

import platform
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from optuna.trial import TrialState

from autokd.config import ResolvedConfig
from autokd.outcomes import Outcome
from autokd.report import SEARCHED
from autokd.spec import DistillerSpec, formula
from autokd.storage import Entry as EntryResult
from autokd.storage import Results, SearchSummary, TeacherResult, read_record, write_text_atomically
from autokd.study.entries import Entry, winner_of
from autokd.study.fidelity import proxy_fidelity
from autokd.study.framework_files import export_student
from autokd.study.promotion import promoted_trial
from autokd.study.reporting import TEACHER_DETECTIONS, write_run_report
from autokd.training import TeacherScore

if TYPE_CHECKING:
    import optuna

    from autokd.study.run import Run


def hand_over(run: Run, entries: Sequence[Entry], outcomes: Mapping[str, Outcome]) -> Results:
    """Write student.pt, best_distiller.yaml, results.json and report.html; return the results."""
    seeds = run.config.full.seeds
    winner = winner_of(entries, outcomes, seeds)
    results = Results(
        name=run.config.name,
        search=search_summary(run.study, run.config.search.sampler, run.ledger.seconds_used()),
        teacher=_teacher_result(run.preparation.score),
        teachers=tuple(map(_teacher_result, run.preparation.scores)) if len(run.preparation.scores) > 1 else (),
        entries=tuple(_entry_result(run.study, entry, entry.outcomes(outcomes, seeds), seeds) for entry in entries),
        race=run.ledger.race(),
        winner=winner.name,
        notes=_notes(run, entries, outcomes),
        versions=_versions(),
    )
    results = results.model_copy(update={"proxy_fidelity": proxy_fidelity(results.entries, results.race)})
    _write_student(run, winner, outcomes)
    _write_distiller(run, winner, entries)
    results.write(run.directory.results_path)
    if (detections := run.preparation.score.detections_test) and Path(detections).exists():
        shutil.copyfile(detections, run.directory.path / TEACHER_DETECTIONS)
    write_run_report(run.directory.path, cache_dir=run.cache_dir, storage_url=run.storage_url)
    return results


def search_summary(study: optuna.Study, sampler: str, seconds: float) -> SearchSummary:
    """Count how the trials of a study ended."""
    counts: Counter[str] = Counter()
    causes: Counter[str] = Counter()
    for trial in study.get_trials(deepcopy=False):
        record = read_record(trial)
        if not trial.state.is_finished() or (record.outcome is not None and record.outcome.cause == "interrupted"):
            continue
        name = {TrialState.COMPLETE: "finished", TrialState.PRUNED: "pruned"}.get(trial.state, "failed")
        counts[name] += 1
        counts["reused"] += record.reused_from is not None
        if name == "failed" and record.outcome is not None and record.outcome.cause is not None:
            causes[record.outcome.cause] += 1
    return SearchSummary(
        sampler=sampler,
        finished=counts["finished"],
        failed=counts["failed"],
        pruned=counts["pruned"],
        reused=counts["reused"],
        seconds=round(seconds, 1),
        causes=dict(causes),
    )


def _teacher_result(score: TeacherScore) -> TeacherResult:
    per_class: dict[str, float | None] = {f"val_ap/{name}": value for name, value in score.val_per_class.items()}
    per_class |= {f"test_ap/{name}": value for name, value in score.test_per_class.items()}
    return TeacherResult(val_ap=score.val_ap, test_ap=score.test_ap, metrics=per_class)


def _entry_result(study: optuna.Study, entry: Entry, outcomes: Sequence[Outcome], seeds: Sequence[int]) -> EntryResult:
    def column(name: str) -> tuple[float | None, ...]:
        return tuple(o.metrics.get(name) if o.status == "finished" else None for o in outcomes)

    names = sorted({name for outcome in outcomes for name in outcome.metrics})
    per_class = {split: [n for n in names if n.startswith(f"{split}_ap/")] for split in ("val", "test")}
    others = [n for n in names if "/" not in n and n not in ("val_ap", "test_ap", "train_seconds")]
    return EntryResult(
        name=entry.name,
        spec=entry.spec.to_data() if entry.spec is not None else {},
        digest=entry.digest,
        seeds=tuple(seeds),
        val_ap=column("val_ap"),
        test_ap=column("test_ap"),
        train_seconds=column("train_seconds"),
        formula=formula(entry.spec) if entry.spec is not None else "",
        metrics={name: column(name) for name in others},
        val_ap_per_class={name.partition("/")[2]: column(name) for name in per_class["val"]},
        test_ap_per_class={name.partition("/")[2]: column(name) for name in per_class["test"]},
        proxy_reward=_proxy_reward(study, entry),
    )


def _proxy_reward(study: optuna.Study, entry: Entry) -> float | None:
    """The reward of this distiller's trial; 0 for "none", by definition; None if the search never tried it."""
    if entry.spec is None:
        return 0.0
    for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        if read_record(trial).digest == entry.digest:
            return trial.value
    return None


def _notes(run: Run, entries: Sequence[Entry], outcomes: Mapping[str, Outcome]) -> tuple[str, ...]:
    notes = []
    if run.datasets.test_is_val:
        notes.append(
            "There is no test file: what stands as test AP was measured on val, on which the winner was chosen."
        )
    if len(run.config.teachers) > 1:
        notes.append(_teachers_note(run.config, run.preparation.scores))
    if run.config.search.promote_after is not None and run.study.get_trials(deepcopy=False):
        notes.append(_promotion_note(run.study, entries))
    strength = run.config.full.baseline_strength
    if strength == "published":
        notes.append("The presets were trained with the weights of their papers.")
    else:
        notes.append(f"The presets were trained at a gradient ratio of {strength:g}, kept as training goes on.")
    for entry in entries:
        for outcome in entry.outcomes(outcomes, run.config.full.seeds):
            if outcome.status != "finished":
                notes.append(f"{entry.name}: {outcome.job_id} failed ({outcome.cause}): {outcome.message}")
    return tuple(notes)


def _teachers_note(config: ResolvedConfig, scores: Sequence[TeacherScore]) -> str:
    factors = config.teacher_factors
    shares = factors if isinstance(factors, str) else "as " + " : ".join(f"{factor:g}" for factor in factors)
    precisions = ", ".join(f"{score.val_ap:.4f}" for score in scores)
    return (
        f"{len(scores)} teachers share the loss ({shares}); val AP in the file's order: {precisions}. What stands for "
        "the teacher is the best of them on val."
    )


def _promotion_note(study: optuna.Study, entries: Sequence[Entry]) -> str:
    number = promoted_trial(study)
    if number is None:
        return "No student was promoted: too few trials finished."
    taught = [entry.name for entry in entries if entry.promoted]
    return (
        f"The student of trial {number} was promoted and taught later trials; behind a '+' in a digest stands its own. "
        f"Trained in full with it: {', '.join(taught) or 'none'}."
    )


def _versions() -> dict[str, str]:
    names = ("autokd", "torch", "torchvision", "optuna", "ray", "numpy", "pycocotools")
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in names}}


def _write_student(run: Run, winner: Entry, outcomes: Mapping[str, Outcome]) -> None:
    """Copy the winner's weights of the seed with the best val AP; and the files of its own framework, if it has any."""
    finished = [o for o in winner.outcomes(outcomes, run.config.full.seeds) if "weights" in o.artifacts]
    if not finished:
        run.observer.say("no full training finished: there is no student to hand over.")
        return
    best = max(finished, key=lambda outcome: outcome.metrics["val_ap"])
    shutil.copyfile(best.artifacts["weights"], run.directory.weights_path)
    export_student(run.config, run.datasets, run.directory.weights_path, run.directory.path)


def _write_distiller(run: Run, winner: Entry, entries: Sequence[Entry]) -> None:
    """The winner's distiller; where "none" won, the searched one, for whoever wants to look at it."""
    chosen = [winner, *(entry for entry in entries if entry.name == SEARCHED)]
    spec = next((entry.spec for entry in chosen if entry.spec is not None), None)
    if spec is not None:
        named = DistillerSpec(spec.terms, winner.name if winner.spec is spec else SEARCHED, spec.paper)
        write_text_atomically(run.directory.distiller_path, named.to_yaml())


__all__ = ["hand_over", "search_summary"]
