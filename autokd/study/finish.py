"""The end of a run: weights, distiller, results and report, written into the run directory."""

from __future__ import annotations

import platform
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from importlib import metadata
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from optuna.trial import TrialState

from autokd.config import ResolvedConfig
from autokd.detectors import detector_family_of, family_notes
from autokd.files import copy_file_atomically, write_text_atomically
from autokd.jobs import NO_DISTILLATION, SEARCHED, Outcome, inactive_words
from autokd.metrics import TEST_AP, TRAIN_SECONDS, VAL_AP, class_ap, is_part, part_of, size_ap
from autokd.spec import formula
from autokd.storage import (
    Entry,
    Results,
    SearchSummary,
    StudentCard,
    StudyFacts,
    TeacherResult,
    read_record,
)
from autokd.study.context import FullResults, RunContext
from autokd.study.cost import with_cost
from autokd.study.distillers import NamedDistiller, best_on_val
from autokd.study.fidelity import proxy_fidelity
from autokd.study.framework_files import export_student
from autokd.study.reporting import TEACHER_DETECTIONS, write_run_report
from autokd.training import CHECKPOINTS_FOLDER, TeacherScore

if TYPE_CHECKING:
    import optuna


def write_results(run: RunContext, trained: FullResults) -> Results:
    """Write student.pt, best_distiller.yaml, results.json and report.html; return the results.

    Args:
        run: the run.
        trained: full trainings and their outcomes.

    Returns:
        The content of results.json. The winner is the best on val.
    """
    config, scores = run.config, run.preparation.scores
    seeds = config.full.seeds
    winner = best_on_val(trained.distillers, trained.outcomes, seeds)
    results = Results(
        name=config.name,
        search=with_cost(run, trained, search_summary(run.study, config.search.sampler, run.clock.seconds())),
        teacher=_teacher_result(run.preparation.score),
        teachers=tuple(map(_teacher_result, scores)) if len(scores) > 1 else (),
        entries=tuple(
            _entry(run.study, each, each.outcomes(trained.outcomes, seeds), seeds) for each in trained.distillers
        ),
        race=run.facts.race,
        winner=winner.name,
        notes=_notes(run, trained),
        versions=_versions(),
    )
    results = results.model_copy(update={"proxy_fidelity": proxy_fidelity(results.entries, results.race)})
    _write_student(run, winner, trained)
    _write_distiller(run, winner, trained)
    # Before the report, which reads it from the folder as ``autokd report`` does later.
    results.write(run.directory.results_path)
    if (detections := run.preparation.score.detections_test) and Path(detections).exists():
        copy_file_atomically(Path(detections), run.directory.path / TEACHER_DETECTIONS)
    write_run_report(run.directory.path, cache_dir=run.cache_dir, storage_url=run.storage_url)
    # Those of trials that ended otherwise than by their own: the run is over, and nothing goes on from them.
    shutil.rmtree(run.directory.path / CHECKPOINTS_FOLDER, ignore_errors=True)
    return results


def search_summary(study: optuna.Study, sampler: str, seconds: float) -> SearchSummary:
    """Count how the trials of a study ended; interrupted ones are left out, since they are evaluated again.

    Args:
        study: study of the search.
        sampler: name of its sampler.
        seconds: wall time of the run in seconds.
    """
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
    parts: dict[str, float | None] = {class_ap("val", name): ap for name, ap in score.val_per_class.items()}
    parts |= {class_ap("test", name): ap for name, ap in score.test_per_class.items()}
    parts |= {size_ap("val", size): ap for size, ap in score.val_per_size.items()}
    parts |= {size_ap("test", size): ap for size, ap in score.test_per_size.items()}
    return TeacherResult(val_ap=score.val_ap, test_ap=score.test_ap, metrics=parts)


def _entry(study: optuna.Study, distiller: NamedDistiller, outcomes: Sequence[Outcome], seeds: Sequence[int]) -> Entry:
    spec = distiller.spec

    def column(name: str) -> tuple[float | None, ...]:
        return tuple(o.metrics.get(name) if o.status == "finished" else None for o in outcomes)

    names = sorted({name for outcome in outcomes for name in outcome.metrics})
    others = [n for n in names if not is_part(n) and n not in (VAL_AP, TEST_AP, TRAIN_SECONDS)]

    def per_class(whole: str) -> dict[str, tuple[float | None, ...]]:
        return {part: column(name) for name in names if (part := part_of(name, whole)) is not None}

    return Entry(
        name=distiller.name,
        spec=spec.to_data() if spec is not None else {},
        digest=distiller.digest,
        seeds=tuple(seeds),
        val_ap=column(VAL_AP),
        test_ap=column(TEST_AP),
        train_seconds=column(TRAIN_SECONDS),
        formula=formula(spec) if spec is not None else "",
        metrics={name: column(name) for name in others},
        val_ap_per_class=per_class(VAL_AP),
        test_ap_per_class=per_class(TEST_AP),
        proxy_reward=_proxy_reward(study, distiller),
        inactive_terms=tuple(dict.fromkeys(name for outcome in outcomes for name in outcome.inactive_terms)),
        is_inactive=any(outcome.is_inactive for outcome in outcomes),
    )


def _proxy_reward(study: optuna.Study, distiller: NamedDistiller) -> float | None:
    """Return the reward of the distiller's trial: 0 for "none", by definition; None if no trial evaluated it."""
    if distiller.spec is None:
        return 0.0
    for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        if read_record(trial).digest == distiller.digest:
            return trial.value
    return None


def _notes(run: RunContext, trained: FullResults) -> tuple[str, ...]:
    notes = []
    if run.datasets.test_is_val:
        notes.append("Test is val: test AP was measured on val, on which the winner was chosen too.")
    notes.extend(run.datasets.shared_images)
    if len(run.config.teachers) > 1:
        notes.append(_teachers_note(run.config, run.preparation.scores))
    if run.config.search.promote_after is not None and run.study.get_trials(deepcopy=False):
        notes.append(_promotion_note(run.facts, trained.distillers))
    if any(each.name not in (NO_DISTILLATION, SEARCHED) for each in trained.distillers):
        notes.append(_ratio_note(run.config.full.baseline_gradient_ratio))
    specs = [each.spec for each in trained.distillers if each.spec is not None]
    notes += family_notes(specs, detector_family_of(run.config.student))
    for distiller in trained.distillers:
        for outcome in distiller.outcomes(trained.outcomes, run.config.full.seeds):
            if outcome.status != "finished":
                notes.append(f"{distiller.name}: {outcome.job_id} failed ({outcome.cause}): {outcome.message}")
            elif words := inactive_words(outcome):
                notes.append(f"{distiller.name}: {outcome.job_id}: {words}")
    return tuple(notes)


def _ratio_note(gradient_ratio: float | Literal["published"]) -> str:
    if gradient_ratio == "published":
        return "The presets were trained with the weights of their papers."
    return f"The presets were trained at a gradient ratio of {gradient_ratio:g}, kept throughout the training."


def _teachers_note(config: ResolvedConfig, scores: Sequence[TeacherScore]) -> str:
    factors = config.teacher_weights
    shares = factors if isinstance(factors, str) else "as " + " : ".join(f"{factor:g}" for factor in factors)
    precisions = ", ".join("none" if score.val_ap is None else f"{score.val_ap:.4f}" for score in scores)
    return (
        f"{len(scores)} teachers share the loss ({shares}); val AP in the file's order: {precisions}. The row "
        "'teacher' is the best of them on val."
    )


def _promotion_note(facts: StudyFacts, distillers: Sequence[NamedDistiller]) -> str:
    promoted = facts.promoted
    if promoted is None:
        return "No student was promoted: too few trials finished."
    taught = [distiller.name for distiller in distillers if distiller.promoted]
    return (
        f"The student of trial {promoted.trial} was promoted and taught later trials; a digest with a '+' ends in that "
        f"student's digest. Trained in full with it: {', '.join(taught) or 'none'}."
    )


def _versions() -> dict[str, str]:
    names = ("autokd", "torch", "torchvision", "optuna", "ray", "numpy", "pycocotools", "faster-coco-eval")
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in names}}


def _write_student(run: RunContext, winner: NamedDistiller, trained: FullResults) -> None:
    """Copy the winner's weights of the seed with the best val AP; a student of MMDetection in its own format too."""
    outcomes = winner.outcomes(trained.outcomes, run.config.full.seeds)
    files = [(o.metrics[VAL_AP], path) for o in outcomes if (path := o.file("weights", run.directory.path)) is not None]
    if not files:
        run.observer.say("no full training finished, so no student.pt is written")
        return
    copy_file_atomically(max(files, key=itemgetter(0))[1], run.directory.weights_path)
    train = run.datasets.train
    StudentCard(
        name=run.config.name,
        detector=run.config.student,
        classes=train.classes,
        category_ids=train.category_ids,
        image_size_px=train.image_size_px,
        has_two_frames=train.frames.has_two,
    ).write(run.directory.path)
    export_student(run.config, run.datasets, run.directory.weights_path, run.directory.path)


def _write_distiller(run: RunContext, winner: NamedDistiller, trained: FullResults) -> None:
    """Write the winner's distiller; if "none" won, the searched one, so that the search's result is not lost."""
    chosen = [winner, *(each for each in trained.distillers if each.name == SEARCHED)]
    spec = next((each.spec for each in chosen if each.spec is not None), None)
    if spec is not None:
        named = replace(spec, name=winner.name if winner.spec is spec else SEARCHED)
        write_text_atomically(run.directory.distiller_path, named.to_yaml())


__all__ = ["search_summary", "write_results"]
