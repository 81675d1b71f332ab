"""Store the tree, the search curve and a note on the study, where optuna-dashboard shows them.

The figures appear on the study's page below its own, the note on its note tab.
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import TYPE_CHECKING

from autokd.report import TrialView, best_trial, draw_tree, results_markdown, search_curve, trials_of
from autokd.storage.optuna_private import study_id

if TYPE_CHECKING:
    import optuna
    import plotly.graph_objects as go
    from optuna.storages import BaseStorage

    from autokd.storage import Results

TREE_ID = "autokd-tree"
CURVE_ID = "autokd-search-curve"
BEGIN = "[//]: # (autokd begins)"
END = "[//]: # (autokd ends)"
"""Marks around AutoKD's part of the note, which Markdown does not show; text outside them is kept."""


def publish_tree(study: optuna.Study, *, results: Results | None = None) -> None:
    """Store tree, search curve and note on the study, in place of those stored before.

    Args:
        study: study of the search.
        results: results of the run, whose table the note gets; None: the note has the best trial alone.
    """
    from optuna_dashboard import get_note, save_note, save_plotly_graph_object

    trials = trials_of(study)
    tree = _fitted(draw_tree(trials), "AutoKD: the tree of decisions, colored by mean reward")
    curve = _fitted(search_curve(trials, none_value=0.0), "AutoKD: reward of each trial")
    save_plotly_graph_object(study, tree, graph_object_id=TREE_ID)
    save_plotly_graph_object(study, curve, graph_object_id=CURVE_ID)
    old = get_note(study)
    new = merged_note(old, study_note(trials, results))
    if new != old:
        save_note(study, new)


def publish_changed(
    storage: BaseStorage, known: MutableMapping[int, tuple[int, bool]], results: Results | None = None
) -> None:
    """Publish every study whose trials or results have changed since the last call.

    Args:
        storage: storage of the studies.
        known: id of a study -> (number of ended trials, whether there were results) at the last call; updated.
        results: results of the run; None: there are none yet.
    """
    import optuna
    from optuna.trial import TrialState

    for frozen in storage.get_all_studies():
        states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
        number = study_id(frozen)
        ended = storage.get_n_trials(number, state=states)
        found = (ended, results is not None)
        if ended and known.get(number) != found:
            publish_tree(optuna.load_study(study_name=frozen.study_name, storage=storage), results=results)
            known[number] = found


def _fitted(figure: go.Figure, title: str) -> go.Figure:
    """Fit a figure into a card of the dashboard, which has a fixed height and no heading."""
    figure.update_layout(height=450, title={"text": title, "x": 0.02, "font": {"size": 16}}, margin_t=96)
    return figure


def study_note(trials: Sequence[TrialView], results: Results | None = None) -> str:
    """Return what the search has found so far, as Markdown.

    Args:
        trials: trials of the search.
        results: results of the run; None: there are none yet.
    """
    best = best_trial(trials)
    lines = ["## AutoKD", ""]
    if best is None:
        lines.append("No trial has finished yet.")
    else:
        lines.append(f"Best so far: trial {best.number}, reward {best.value:.4g}.")
        lines += ["", f"    {best.formula}"]
    if results is not None:
        lines += ["", results_markdown(results)]
    return "\n".join(lines)


def merged_note(old: str, ours: str) -> str:
    """Return a note with AutoKD's part replaced, or put in front if it had none; all else is kept.

    Args:
        old: note as it is.
        ours: new text of AutoKD's part.
    """
    block = f"{BEGIN}\n\n{ours.strip()}\n\n{END}"
    before, begin, rest = old.partition(BEGIN)
    _, end, after = rest.partition(END)
    if begin and end:
        return before + block + after
    return f"{block}\n\n{old}".rstrip() + "\n"
