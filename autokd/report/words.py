"""Sentences, cards and small tables of the page, as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autokd.errors import name_list
from autokd.jobs import NO_DISTILLATION, SEARCHED
from autokd.metrics import SIZES
from autokd.report.charts import class_names
from autokd.report.headline import headline, subject_of
from autokd.report.statistics import Gain, summarize
from autokd.report.tables import ABSENT, interval, spread
from autokd.report.view import EntryView, ReportData, TrialView, best_trial

MAX_TRIAL_ROWS = 300
"""Number of trials that the page lists."""


@dataclass(frozen=True, slots=True)
class Card:
    """A number of the headline; ``tone`` is "", "good" or "bad"."""

    label: str
    value: str
    detail: str
    tone: str = ""


@dataclass(frozen=True, slots=True)
class FailureRow:
    """One cause: how many trials, which, and the message of the first."""

    cause: str
    count: int
    trials: str
    example: str


@dataclass(frozen=True, slots=True)
class TrialRow:
    """A trial as text."""

    number: int
    state: str
    value: str
    seconds: str
    formula: str


def cards(data: ReportData) -> list[Card]:
    """Return the numbers of the headline; none if no full training finished."""
    said = headline(data)
    found = []
    subject = subject_of(data)
    summary = summarize(subject.test_ap) if subject is not None else None
    if subject is not None and summary is not None:
        over = "1 seed" if summary.count == 1 else f"{summary.count} seeds"
        spread_words = "" if summary.deviation is None else f"± {summary.deviation:.4f}, "
        found.append(Card(f"{subject.name}, {data.judged_on} AP", f"{summary.mean:.4f}", spread_words + over))
    if said.over_none is not None:
        found.append(_gain_card("against none", said.over_none))
    if said.over_preset is not None:
        found.append(_gain_card(f"against {said.best_preset}, the best other", said.over_preset))
    if data.teacher.test_ap is not None:
        found.append(Card(f"teacher, {data.judged_on} AP", f"{data.teacher.test_ap:.4f}", _gap_closed(data, subject)))
    return found


def teacher_words(data: ReportData) -> dict[str, str] | None:
    """Return the teacher's row of the table; None if its AP is not known."""
    if data.teacher.val_ap is None and data.teacher.test_ap is None:
        return None
    show = {"val": data.teacher.val_ap, "test": data.teacher.test_ap}
    return {split: ABSENT if value is None else f"{value:.4f}" for split, value in show.items()}


def search_words(data: ReportData) -> str:
    """Return what the search did, in a sentence or two."""
    search = data.search
    if not data.trials:
        return "The search has no trials."
    open_ = sum(trial.status == "running" or trial.cause == "interrupted" for trial in data.trials)
    counts = [(search.finished, "finished"), (search.pruned, "pruned"), (search.failed, "failed")]
    counts.append((open_, "running or interrupted"))
    listed = ", ".join(f"{number} {what}" for number, what in counts if number)
    sampler = f"{search.sampler}: " if search.sampler else ""
    words = f"{sampler}{len(data.trials)} trials; {listed or 'none finished'}"
    if search.reused:
        words += f"; {search.reused} of them took the value of an equal distiller"
    words += f", in {duration(search.seconds)}." if search.seconds else "."
    best = best_trial(data.trials, search.direction)
    if best is not None:
        what = f", the enqueued preset {best.preset}" if best.preset else ""
        words += f" The best {search.value_meaning} is {best.value:.4g}, of trial {best.number}{what}."
    if search.cost:
        words += f" {search.cost}"
    return words


def winner_words(data: ReportData) -> str:
    """Return which distiller won, and on which split it was chosen."""
    entry = data.winning_entry
    if entry is None:
        return ""
    if entry.name == NO_DISTILLATION:
        return "Training without distillation won on val: no distiller helps here."
    digest = f", digest {entry.digest}" if entry.digest else ""
    if entry.name != SEARCHED:
        return f"{entry.name} won on val{digest}."
    return (
        f"The searched distiller{digest}." if data.winner != SEARCHED else f"The searched distiller won on val{digest}."
    )


def fidelity_words(data: ReportData) -> str:
    """Return Kendall's tau with how far it can be trusted."""
    found = data.proxy_fidelity
    if found.kendall_tau is None or found.pairs < 1:
        too_few = "Too few distillers were judged both by the proxy and in full to compare their order."
        return f"{too_few} {found.note}".rstrip()
    has_interval = found.low is not None and found.high is not None
    within = f", 95% interval [{found.low:+.2f}, {found.high:+.2f}]," if has_interval else ""
    words = (
        "Kendall's tau between the proxy's reward and the mean val AP of the full trainings is "
        f"{found.kendall_tau:+.2f}{within} over {found.pairs} distillers "
        "(1: the same order, 0: no relation, -1: reversed)."
    )
    if found.low is not None and found.low <= 0:
        words += " The interval contains 0: this run alone does not show that the proxy ranks distillers at all."
    elif found.pairs < 15:
        words += " With so few distillers this is a hint, not a measurement."
    return f"{words} {found.note}".rstrip()


def seeds_words(data: ReportData) -> str:
    """Return the seeds of the full trainings."""
    seeds = sorted({seed for entry in data.entries for seed in entry.seeds})
    if not seeds:
        return "No full training was recorded."
    listed = ", ".join(map(str, seeds))
    return f"Full trainings used the seeds {listed}; equal seeds share initial weights and order of images."


def failures(trials: Sequence[TrialView]) -> list[FailureRow]:
    """Return the causes of failed trials, the most frequent first."""
    by_cause: dict[str, list[TrialView]] = {}
    for trial in trials:
        if trial.status == "failed":
            by_cause.setdefault(trial.cause or "unknown", []).append(trial)
    listed = [
        FailureRow(
            cause,
            len(failed),
            name_list((t.number for t in failed), limit=12),
            next((t.message for t in failed if t.message), ABSENT)[:400],
        )
        for cause, failed in by_cause.items()
    ]
    return sorted(listed, key=lambda row: (-row.count, row.cause))


def class_rows(data: ReportData) -> list[list[str]]:
    """Return a row for each class: its name, then mean and spread for each entry with APs by class."""
    entries = [entry for entry in data.entries if entry.per_class]
    found = []
    for name in class_names(data):
        row = [name, *(spread(entry.per_class.get(name, ())) for entry in entries)]
        if data.teacher_per_class:
            row.append(spread([data.teacher_per_class[name]] if name in data.teacher_per_class else []))
        found.append(row)
    return found


def size_rows(data: ReportData) -> list[list[str]]:
    """Return a row for each size of objects that occurs: its name, then the columns of ``class_rows``."""
    entries = [entry for entry in data.entries if entry.per_class]
    found = []
    for size in SIZES:
        if not any(size in entry.per_size for entry in entries):
            continue
        row = [f"{size} objects", *(spread(entry.per_size.get(size, ())) for entry in entries)]
        if data.teacher_per_class:
            row.append(spread([data.teacher_per_size[size]] if size in data.teacher_per_size else []))
        found.append(row)
    return found


def trial_rows(data: ReportData) -> list[TrialRow]:
    """Return the trials, best first, those without a value last; at most 300, so that the page stays light."""
    sign = 1.0 if data.search.direction == "minimize" else -1.0

    def rank(trial: TrialView) -> tuple[bool, float, int]:
        valued = trial.has_value and trial.value is not None
        return not valued, sign * trial.value if valued and trial.value is not None else 0.0, trial.number

    return [_trial_row(trial) for trial in sorted(data.trials, key=rank)[:MAX_TRIAL_ROWS]]


def duration(seconds: float) -> str:
    """Return "42 s", "3 min 5 s" or "2 h 10 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _gain_card(label: str, found: Gain) -> Card:
    tone = ("good" if found.mean > 0 else "bad") if found.is_certain else ""
    detail = "one seed: no interval" if found.low is None else f"95% {interval(found)}"
    return Card(label, f"{found.mean:+.4f}", detail, tone)


def _gap_closed(data: ReportData, subject: EntryView | None) -> str:
    """Return the share of the gap between none and the teacher that the headline's distiller closes."""
    none = data.entry(NO_DISTILLATION)
    low = summarize(none.test_ap) if none is not None else None
    ours = summarize(subject.test_ap) if subject is not None else None
    if low is None or ours is None or data.teacher.test_ap is None or data.teacher.test_ap <= low.mean:
        return ""
    share = (ours.mean - low.mean) / (data.teacher.test_ap - low.mean)
    return f"{share:.0%} of the gap from none is closed"


def _trial_row(trial: TrialView) -> TrialRow:
    state = trial.cause or trial.status
    if trial.preset:
        state = f"{state}, preset {trial.preset}"
    if trial.reused_from is not None:
        state = f"{state}, as trial {trial.reused_from}"
    if trial.inactive_terms:
        state = f"{state}, term inactive: {name_list(trial.inactive_terms)}"
    return TrialRow(
        trial.number,
        state,
        ABSENT if trial.value is None else f"{trial.value:.4f}",
        f"{trial.seconds:.1f}" if trial.seconds else ABSENT,
        trial.formula,
    )
