"""The output of ``autokd space`` and ``autokd presets``."""

from __future__ import annotations

import numpy
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from autokd.config import RunConfig
from autokd.errors import DataError
from autokd.presets import load_preset, preset_names
from autokd.space import DataContent, Slot, count_specs, levels_label
from autokd.spec import formula, operator_of
from autokd.spec.terms import ALL_LEVELS
from autokd.spec.vocabulary import IDENTITY


def presets_table() -> Table:
    """Return a table of the presets: name, formula with the published weight, paper."""
    table = Table("preset")
    table.add_column("formula", overflow="fold")  # on a narrow terminal it is wrapped, not cut
    table.add_column("paper", overflow="fold")
    for name in preset_names():
        spec = load_preset(name)
        table.add_row(name, formula(spec), spec.paper)
    return table


def space_view(config: RunConfig, num_samples: int) -> RenderableType:
    """Return the search space of a config: its tree, its size, what the detectors cannot supply, a few samples.

    Args:
        config: configuration of the run.
        num_samples: number of random distillers.
    """
    from autokd.detectors import first_trials, pair_of, unfit_baselines

    content, unread = _content(config)
    pair = pair_of(config, content)
    supplied, reasons = pair.part_of(config.space)
    tree = Tree(Text(f"{config.name}: {supplied.min_terms} to {supplied.max_terms} terms"))
    for slot in supplied.slots:
        tree.add(_slot_branch(slot))
    tree.add(f"gradient_ratio: {supplied.gradient_ratio}")
    tree.add(f"schedule: {', '.join(supplied.schedules)}")
    tree.add(f"level_weighting: {', '.join(supplied.level_weighting)}")
    if supplied.levels != (ALL_LEVELS,):
        tree.add(f"levels: {', '.join(map(levels_label, supplied.levels))}")
    lines = [f"{count_specs(supplied):,} distinct distillers (a range of numbers counts as one)"]
    lines += [f"left out: {reason}" for reason in reasons] or ["the pair supplies all of it"]
    lines += unread
    lines += first_trials(config, pair, supplied).notes
    if unfit := unfit_baselines(config, content):
        lines.append(f"search and distill refuse this file. {unfit}")
    lines += _recipe_lines(config)
    rng = numpy.random.default_rng(config.search.seed)
    lines += [f"e.g. {formula(supplied.sample(rng))}" for _ in range(num_samples)]
    return Group(tree, *(Text(line) for line in lines))


def _content(config: RunConfig) -> tuple[DataContent | None, list[str]]:
    """Return the training set's content; if it cannot be read, None, and a line that says so."""
    from autokd.data import content_of

    try:
        return content_of(config.data), []
    except DataError as error:
        return None, [
            f"not checked: whether data and batches have the classes, objects and images of each term. {error}"
        ]


def _recipe_lines(config: RunConfig) -> list[str]:
    """Return the lines about what trainings take from the files of the student, beside its model."""
    from autokd.detectors import framework_of, resolve

    if not config.student.has_recipe:
        return []
    return list(resolve(config).notes or framework_of(config.student).training_notes(config.student))


def _slot_branch(slot: Slot) -> Tree:
    branch = Tree(slot.name)
    for option in slot.options:
        meaning = "nothing" if option.step.name == IDENTITY else operator_of(slot.kind, option.step.name).meaning
        branch.add(Text(f"{option}: {meaning}"))
    return branch
