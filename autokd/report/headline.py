"""The headline of a report: what was found, claimed only as far as the intervals allow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from autokd.jobs import NO_DISTILLATION, SEARCHED
from autokd.report.statistics import Gain, gain, summarize
from autokd.report.view import EntryView, ReportData, best_trial

Tone = Literal["ahead", "open", "behind", "empty"]


@dataclass(frozen=True, slots=True)
class Headline:
    """The first words of a report.

    Args:
        title: the finding in one sentence.
        sentences: the numbers, and what limits them.
        tone: "ahead", "open", "behind" or "empty", by which the page is colored.
        over_none: gain over no distillation; None: not known.
        over_preset: gain over the best other distiller; None: there is none.
        best_preset: name of that distiller.
    """

    title: str
    sentences: tuple[str, ...]
    tone: Tone
    over_none: Gain | None = None
    over_preset: Gain | None = None
    best_preset: str = ""


def subject_of(data: ReportData) -> EntryView | None:
    """Return the entry that the headline is about: the searched distiller, else the best on val that is not none.

    Args:
        data: values of the report.
    """
    searched = data.entry(SEARCHED)
    if searched is not None:
        return searched
    rated = [(_mean(entry.val_ap), entry) for entry in data.entries if entry.name != NO_DISTILLATION]
    return max(rated, key=lambda pair: pair[0])[1] if rated else None


def best_preset(data: ReportData, subject: EntryView) -> EntryView | None:
    """Return the other distiller with the highest mean test AP. Choosing it on test favors it, not the subject.

    Args:
        data: values of the report.
        subject: entry that it is compared with.
    """
    rated = [
        (_mean(entry.test_ap), entry)
        for entry in data.entries
        if entry.name not in (NO_DISTILLATION, subject.name)
        and summarize(entry.test_ap) is not None
        and not _same(entry, subject)
    ]
    return max(rated, key=lambda pair: pair[0])[1] if rated else None


def headline(data: ReportData) -> Headline:
    """Return the headline of a report.

    Args:
        data: values of the report.
    """
    subject = subject_of(data)
    if subject is None or summarize(subject.test_ap) is None:
        return _without_result(data)
    none, preset = data.entry(NO_DISTILLATION), best_preset(data, subject)
    over_none = gain(subject, none) if none is not None else None
    over_preset = gain(subject, preset) if preset is not None else None
    name = preset.name if preset is not None else ""
    who = "searched distiller" if subject.name == SEARCHED else f"distiller {subject.name}"
    title, tone = _title(who, over_none, over_preset, name, data.judged_on)
    sentences = [_of_entry(f"The {who}", subject, data.judged_on)]
    if over_none is not None:
        sentences.append(_of_gain("no distillation", over_none))
    if over_preset is not None:
        sentences.append(_of_gain(f"the best other distiller, {name}", over_preset))
    sentences += _caveats(data, subject, over_none, over_preset)
    return Headline(title, tuple(sentences), tone, over_none, over_preset, name)


def _title(who: str, over_none: Gain | None, over_preset: Gain | None, preset: str, split: str) -> tuple[str, Tone]:
    rivals = [found for found in (over_none, over_preset) if found is not None]
    if not rivals:
        return f"The {who} was trained in full, with nothing to compare it to on {split}", "open"
    if over_none is not None and over_none.mean <= 0:
        how = "clearly worse than" if over_none.is_certain else "no better than"
        return f"The {who} is {how} no distillation on {split}", "behind"
    if over_preset is not None and over_preset.mean <= 0:
        how = "beats" if over_preset.is_certain else "is level with or ahead of"
        return f"{preset} {how} the {who} on {split}", "behind"
    named = (("no distillation", over_none), (f"the best other distiller ({preset})", over_preset))
    names = [name for name, found in named if found is not None]
    if all(rival.is_certain for rival in rivals):
        return f"The {who} beats {' and '.join(names)} on {split}", "ahead"
    if over_none is not None and over_none.is_certain:
        return f"The {who} beats no distillation on {split}; its lead over {preset} is within the noise", "open"
    return f"The {who} has the highest mean AP on {split}, but its lead is within the noise", "open"


def _of_entry(subject: str, entry: EntryView, split: str) -> str:
    summary = summarize(entry.test_ap)
    assert summary is not None, "entries without values are handled before"
    spread = "" if summary.deviation is None else f" ± {summary.deviation:.4f} (standard deviation)"
    return f"{subject} reaches {split} AP {summary.mean:.4f}{spread} over {_seeds(summary.count)}."


def _of_gain(rival: str, found: Gain) -> str:
    ahead = f"{found.mean:+.4f} AP against {rival}"
    if found.low is None:
        return f"{ahead}; with one seed nothing can be said about its noise."
    how = f"{found.count} paired seeds" if found.is_paired else "unpaired seeds, Welch"
    return f"{ahead}, 95% interval [{found.low:+.4f}, {found.high:+.4f}] (Student t, {how})."


def _caveats(data: ReportData, subject: EntryView, over_none: Gain | None, over_preset: Gain | None) -> list[str]:
    caveats = []
    equal = [entry.name for entry in data.entries if entry.name != subject.name and _same(entry, subject)]
    if equal:
        caveats.append(f"It is the same distiller as {', '.join(equal)}: their rows share their trainings.")
    if over_none is None:
        caveats.append("No training without distillation finished, so no gain can be stated.")
    if over_none is not None and over_preset is None:
        caveats.append("No other distiller was trained beside it, so there is no comparison with published ones.")
    if data.judged_on == "val":
        caveats.append(
            "There is no test split: these are numbers on val, by which the search chose, and they flatter it."
        )
    return caveats


def _without_result(data: ReportData) -> Headline:
    best = best_trial(data.trials, data.search.direction)
    if not data.trials:
        return Headline("Nothing has been tried yet", ("The search has no trials.",), "empty")
    failed = sum(trial.status == "failed" for trial in data.trials)
    if best is None:
        counts = f"{len(data.trials)} trials, {failed} of them failed, none with a value."
        return Headline("No trial has finished", (counts,), "empty")
    value = (
        f"The best of {len(data.trials)} trials is trial {best.number}, {data.search.value_meaning} {best.value:.4g}."
    )
    return Headline(
        "The search has results, the full trainings have not",
        (value, "The reward of a proxy training does not determine test AP; the full trainings decide."),
        "empty",
    )


def _same(entry: EntryView, other: EntryView) -> bool:
    return bool(entry.digest) and entry.digest == other.digest


def _mean(values: Sequence[float]) -> float:
    summary = summarize(values)
    return summary.mean if summary is not None else float("-inf")


def _seeds(count: int) -> str:
    return "1 seed" if count == 1 else f"{count} seeds"
