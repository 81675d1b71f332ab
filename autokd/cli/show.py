"""The output of ``autokd data``, ``autokd space`` and ``autokd presets``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from autokd.config import RunConfig
from autokd.documents import dump_yaml
from autokd.presets import load_preset, preset_names
from autokd.space import Slot, count_specs
from autokd.spec import formula, operator_of
from autokd.spec.vocabulary import IDENTITY


def data_lines(config: RunConfig, cache_dir: Path, *, whole: bool) -> Iterator[str]:
    """Yield the lines about a config's data: the section with what its layout decides, and a report a split.

    Args:
        config: configuration of the run.
        cache_dir: folder of the cache.
        whole: add a digest of every byte of each split.
    """
    from autokd.data import load_datasets

    yield dump_yaml({"data": config.data.model_dump(mode="json")}).rstrip()
    datasets = load_datasets(config.data, cache_dir, check=False)
    for split in datasets.splits:
        yield split.examine().summary()
        if whole:
            yield f"  digest of every byte: {split.whole_digest()}"
    if datasets.test_is_val:
        yield "test: val, on which the winner is chosen too"
    yield from datasets.shared_images


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

    pair = pair_of(config)
    supplied, reasons = pair.part_of(config.space)
    tree = Tree(Text(f"{config.name}: {supplied.min_terms} to {supplied.max_terms} terms"))
    for slot in supplied.slots:
        tree.add(_slot_branch(slot))
    tree.add(f"gradient_ratio: {supplied.gradient_ratio}")
    tree.add(f"schedule: {', '.join(supplied.schedules)}")
    tree.add(f"level_weighting: {', '.join(supplied.level_weighting)}")
    lines = [f"{count_specs(supplied):,} distinct distillers (a range of numbers counts as one)"]
    lines += [f"left out: {reason}" for reason in reasons] or ["the pair supplies all of it"]
    lines += first_trials(config, pair, supplied).notes
    if unfit := unfit_baselines(config):
        lines.append(f"search and distill refuse this file. {unfit}")
    lines += _recipe_lines(config)
    rng = numpy.random.default_rng(config.search.seed)
    lines += [f"e.g. {formula(supplied.sample(rng))}" for _ in range(num_samples)]
    return Group(tree, *(Text(line) for line in lines))


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
