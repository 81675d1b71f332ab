"""The output of ``autokd data``, ``autokd space`` and ``autokd presets``."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from autokd.config import RunConfig
from autokd.documents import dump_yaml
from autokd.errors import DataError
from autokd.presets import families_of, load_distiller, preset_names
from autokd.space import FREE, DataContent, Part, PartSpace, Slot, Space, levels_label, size_words
from autokd.spec import DistillerSpec, formula, formula_lines, operator_of
from autokd.spec.families import ANY_FAMILY
from autokd.spec.terms import ALL_LEVELS
from autokd.spec.vocabulary import IDENTITY

MAX_FIRST = 12
"""Distillers that are tried first, as far as they are listed."""


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
    if datasets.frames_note:
        yield datasets.frames_note


def presets_table() -> Table:
    """Return a table of the presets: name, family of detectors, formula with the published weight, paper."""
    table = Table("preset", "family")
    table.add_column("formula", overflow="fold")  # on a narrow terminal it is wrapped, not cut
    table.add_column("paper", overflow="fold")
    for name in preset_names():
        for i, spec in enumerate(specs_of(name)):
            table.add_row("" if i else name, spec.family, formula(spec), "" if i else spec.paper)
    return table


def specs_of(distiller: str) -> list[DistillerSpec]:
    """Return a distiller as it is for each family of detectors for which it has terms; one spec if it has no families.

    Args:
        distiller: a preset's name, or the path of a distiller's YAML file.

    Raises:
        ConfigError: if there is no such preset and no such file.
        SpecError: if the file does not describe a distiller.
    """
    families = [family for family in families_of(distiller) if family != ANY_FAMILY]
    return [load_distiller(distiller, family) for family in families or (None,)]


def distiller_lines(distiller: str) -> list[str]:
    """Return the output of ``autokd show``: for each family of detectors the formula, what occurs in it, its digest.

    Args:
        distiller: a preset's name, or the path of a distiller's YAML file.

    Raises:
        ConfigError: if there is no such preset and no such file.
        SpecError: if the file does not describe a distiller.
    """
    specs = specs_of(distiller)
    lines = [f"{specs[0].name}  {specs[0].paper}".rstrip()] if specs[0].name else []
    for spec in specs:
        if spec.family or spec.release:
            family = "all detectors" if spec.family in ("", ANY_FAMILY) else f"{spec.family} detectors"
            lines.append(f"for {family}" + (f", from {spec.release}" if spec.release else ""))
        lines += [*formula_lines(spec.canonical()), f"digest {spec.digest}"]
    return lines


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
    if isinstance(supplied, PartSpace):
        tree = _sums_tree(config.name, supplied)
    else:
        tree = Tree(Text(f"{config.name}: {supplied.min_terms} to {supplied.max_terms} terms"))
        _add_terms(tree, supplied)
    lines = [size_words(supplied).removeprefix("space: ")]
    lines += [f"left out: {reason}" for reason in reasons] or ["the pair supplies all of it"]
    lines += unread
    first = first_trials(config, pair, supplied)
    lines += first.notes
    if first.decisions:
        lines.append(f"tried first: {'; '.join(list(first.decisions)[:MAX_FIRST])}")
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


def _sums_tree(name: str, space: PartSpace) -> Tree:
    tree = Tree(Text(f"{name}: {space.min_parts} to {space.max_parts} parts"))
    for family in space.families:
        if family == FREE:
            continue
        branch = tree.add(f"family {family}")
        for preset, parts in itertools.groupby((p for p in space.parts if p.family == family), lambda p: p.preset):
            branch.add(Text(f"{preset}: {', '.join(map(_strength_words, parts))}, each at every strength"))
    if space.free is not None:
        _add_terms(tree.add(f"family {FREE}: one term of operators"), space.free)
    tree.add(f"strength: {', '.join(space.strength_labels)}")
    tree.add(f"schedule: {', '.join(space.schedules)}")
    return tree


def _strength_words(part: Part) -> str:
    return "published weights" if part.gradient_ratio is None else f"gradient ratio {part.gradient_ratio:g}"


def _add_terms(tree: Tree, space: Space) -> None:
    for slot in space.slots:
        tree.add(_slot_branch(slot))
    tree.add(f"gradient_ratio: {space.gradient_ratio}")
    tree.add(f"schedule: {', '.join(space.schedules)}")
    tree.add(f"level_weighting: {', '.join(space.level_weighting)}")
    tree.add(f"adapter: {', '.join(space.adapters)}")
    if space.levels != (ALL_LEVELS,):
        tree.add(f"levels: {', '.join(map(levels_label, space.levels))}")


def _slot_branch(slot: Slot) -> Tree:
    branch = Tree(slot.name)
    for option in slot.options:
        meaning = "nothing" if option.step.name == IDENTITY else operator_of(slot.kind, option.step.name).meaning
        branch.add(Text(f"{option}: {meaning}"))
    return branch
