"""The space: the tree of choices that describes every distiller, and the walk through it, decision by decision."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from autokd.errors import SpecError
from autokd.space.chooser import Chooser, RandomChooser
from autokd.space.domains import Domain, Range
from autokd.space.slots import Option, Path, Slot
from autokd.spec import Counts, DistillerSpec, FlowState, Step, TermSpec, Weight, flow, operator_of
from autokd.spec.needs import UNKNOWN, why_unmet
from autokd.spec.terms import ALL_LEVELS, Adapter, Levels, LevelWeighting, Schedule
from autokd.spec.vocabulary import IDENTITY

if TYPE_CHECKING:
    import numpy


class Successor(NamedTuple):
    """An option of a slot that can be taken after the steps before it."""

    label: str
    state: FlowState
    """The state after the option."""
    num_completions: int
    """Well-typed ways to complete the term after it, at least 1."""


@dataclass(frozen=True)
class Space:
    """A tree of choices: a number of terms; for each a source, an option of every slot, a distance, a weight.

    Only well-typed paths are offered (``autokd.spec.signature``): each decision offers those options from which a term
    can be completed. If these are fewer than the slot's, the decision's name lists them, since Optuna demands that
    decisions of one name always offer the same options. No two terms of a spec are equal.

    Args:
        min_terms: least number of terms of a spec.
        max_terms: greatest number of terms of a spec.
        slots: source, then the slots of transformations in the order of their application, then distance.
        gradient_ratio: gradient ratios of a term.
        schedules: schedules of a term's weight, by their labels (``Weight.schedule_label``).
        level_weighting: ways in which the levels of a term share its weight; a source of a single piece always has
            "equal".
        levels: levels that a term's source is read on; a source of a single piece always has all.
        adapters: adapters of the student's maps; a source that compares no maps of paired levels always has "linear".
        counts: classes, objects and images that trainings have; steps that need more are not offered.
        document: the plain data that the space was read from, defaults written out; None for a part of a space.
    """

    min_terms: int
    max_terms: int
    slots: tuple[Slot, ...]
    gradient_ratio: Domain
    schedules: tuple[str, ...] = ("constant",)
    level_weighting: tuple[LevelWeighting, ...] = ("equal",)
    levels: tuple[Levels, ...] = (ALL_LEVELS,)
    adapters: tuple[Adapter, ...] = ("linear",)
    counts: Counts = UNKNOWN
    document: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)

    def walk(self, chooser: Chooser) -> DistillerSpec:
        """Make every decision through ``chooser``, each depending on those before it.

        Args:
            chooser: is asked once a decision, in a fixed order; a decision with a single option is not asked for.

        Returns:
            The canonical spec at the end of the walk.
        """
        counts = tuple(str(n) for n in range(self.min_terms, self.max_terms + 1))
        count = int(chooser.categorical("terms", counts)) if len(counts) > 1 else self.min_terms
        terms: list[TermSpec] = []
        taken: list[Path] = []
        for index in range(1, count + 1):
            term, path = self.walk_term(chooser, f"t{index}", taken)
            terms.append(term)
            taken.append(path)
        return DistillerSpec(tuple(terms)).canonical()

    def sample(self, rng: numpy.random.Generator) -> DistillerSpec:
        """Return a random spec, for which every decision is uniform over what it offers.

        Args:
            rng: source of random numbers.
        """
        return self.walk(RandomChooser(rng))

    def level_weightings_of(self, source: Step) -> tuple[LevelWeighting, ...]:
        """Return the ways in which the levels of a term may share its weight.

        Args:
            source: the term's source.
        """
        return self.level_weighting if operator_of("source", source.name).by_level else ("equal",)

    def adapters_of(self, source: Step) -> tuple[Adapter, ...]:
        """Return the adapters that a term may have.

        Args:
            source: the term's source.
        """
        return self.adapters if operator_of("source", source.name).by_level else ("linear",)

    def levels_of(self, source: Step) -> tuple[Levels, ...]:
        """Return the levels that a term may be read on.

        Args:
            source: the term's source.
        """
        return self.levels if operator_of("source", source.name).by_level else (ALL_LEVELS,)

    def successors(self, index: int, state: FlowState) -> tuple[Successor, ...]:
        """Return the options of slot ``index`` from which a term can be completed, in the slot's order.

        Args:
            index: position in ``slots``.
            state: the state after the slots before it.
        """
        # Every decision of every walk asks this, and the answer needs all decisions below it: without the memory a
        # walk would take as long as an enumeration of the space.
        key = (index, state)
        if key not in self._memory:
            slot = self.slots[index]
            after = ((option.label, self._advance_or_none(state, slot, option)) for option in slot.options)
            self._memory[key] = tuple(
                Successor(label, reached, count)
                for label, reached in after
                if reached is not None and (count := self.num_completions(index + 1, reached))
            )
        return self._memory[key]

    def num_completions(self, index: int, state: FlowState) -> int:
        """Return the number of well-typed ways to fill the remaining slots.

        Args:
            index: position in ``slots`` of the first that remains.
            state: the state after the slots before it.
        """
        if index == len(self.slots):
            return 1
        return sum(successor.num_completions for successor in self.successors(index, state))

    def __getstate__(self) -> dict[str, Any]:
        """Return the fields alone: a process that receives the space fills a memory of its own."""
        return {name: value for name, value in self.__dict__.items() if name != "_memory"}

    @cached_property
    def _memory(self) -> dict[tuple[int, FlowState], tuple[Successor, ...]]:
        # A cached property writes to __dict__ directly, which a frozen dataclass allows; it is no field, so that equal
        # spaces stay equal. It lives as long as the space.
        return {}

    def has_left(self, taken: Sequence[Path]) -> bool:
        """Return whether a term is left that is none of those taken.

        Args:
            taken: paths of the other terms of the distiller.
        """
        return bool(self._offered(0, FlowState(), (), taken))

    def walk_term(self, chooser: Chooser, prefix: str, taken: Sequence[Path]) -> tuple[TermSpec, Path]:
        """Make the decisions of one term.

        Args:
            chooser: is asked once a decision.
            prefix: beginning of the decisions' names.
            taken: paths of the other terms of the distiller, which are not offered again.

        Returns:
            The term as chosen, not canonical, and its path.
        """
        state = FlowState()
        path: Path = ()
        steps: list[Step] = []
        for index, slot in enumerate(self.slots):
            offered = self._offered(index, state, path, taken)
            if len(offered) > 1:
                label = chooser.categorical(f"{prefix}.{_decision_name(slot, offered)}", offered)
            else:
                [label] = offered
            option = slot.option(label)
            drawn = {name: _choose_number(chooser, f"{prefix}.{slot.name}.{option.step.name}.{name}", domain)
                     for name, domain in option.free}  # fmt: skip
            steps.append(Step.of(option.step.name, **(dict(option.step.params) | drawn)))
            path = (*path, label)
            state = advance(state, slot, option, self.counts)
        source, *transforms, distance = steps
        written = tuple(step for step in transforms if step.name != IDENTITY)
        weight = self._walk_weight(chooser, prefix, source)
        levels = self._walk_levels(chooser, prefix, source)
        adapter = self._walk_adapter(chooser, prefix, source)
        return TermSpec(source, written, distance, weight, levels, adapter), path

    def _walk_weight(self, chooser: Chooser, prefix: str, source: Step) -> Weight:
        gradient_ratio = _choose_number(chooser, f"{prefix}.gradient_ratio", self.gradient_ratio)
        schedule, level_weighting = self.schedules[0], self.level_weightings_of(source)[0]
        if len(self.schedules) > 1:
            schedule = chooser.categorical(f"{prefix}.schedule", self.schedules)
        if len(self.level_weightings_of(source)) > 1:
            level_weighting = cast(
                LevelWeighting, chooser.categorical(f"{prefix}.level_weighting", self.level_weighting)
            )
        return weight_of(gradient_ratio, schedule, level_weighting)

    def _walk_levels(self, chooser: Chooser, prefix: str, source: Step) -> Levels:
        levels = self.levels_of(source)
        if len(levels) == 1:
            return levels[0]
        labels = tuple(map(levels_label, levels))
        return levels[labels.index(chooser.categorical(f"{prefix}.levels", labels))]

    def _walk_adapter(self, chooser: Chooser, prefix: str, source: Step) -> Adapter:
        offered = self.adapters_of(source)
        if len(offered) == 1:
            return offered[0]
        return cast(Adapter, chooser.categorical(f"{prefix}.adapter", offered))

    def _offered(self, index: int, state: FlowState, path: Path, taken: Iterable[Path]) -> tuple[str, ...]:
        """Return the labels at slot ``index`` from which a term can be completed that is not taken yet.

        A path with free parameters is never used up: two terms of it differ in their numbers.
        """
        offered = []
        for label, _, num_completions in self.successors(index, state):
            used = sum(other[: index + 1] == (*path, label) and self._is_discrete(other) for other in taken)
            if num_completions > used:
                offered.append(label)
        return tuple(offered)

    def _advance_or_none(self, state: FlowState, slot: Slot, option: Option) -> FlowState | None:
        try:
            return advance(state, slot, option, self.counts)
        except SpecError:
            return None

    def _is_discrete(self, path: Path) -> bool:
        return not any(slot.option(label).free for slot, label in zip(self.slots, path, strict=True))


def weight_of(gradient_ratio: float, schedule: str, level_weighting: LevelWeighting) -> Weight:
    """Return the relative weight of choices.

    Args:
        gradient_ratio: the ratio.
        schedule: label of a schedule, as of ``Weight.schedule_label``.
        level_weighting: how levels share the weight.
    """
    name, _, number = schedule.rstrip("]").partition("[")
    off_after = float(number) if number else 1.0
    return Weight("relative", gradient_ratio, cast(Schedule, name), level_weighting, off_after)


def levels_label(levels: Levels) -> str:
    """Return the value of the decision for levels, e.g. "coarsest" or "p3+p4".

    Args:
        levels: levels of a term.
    """
    return "+".join(levels)


def advance(state: FlowState, slot: Slot, option: Option, counts: Counts = UNKNOWN) -> FlowState:
    """Return the state after an option of a slot.

    Args:
        state: the state before the option.
        slot: the slot.
        option: an option of the slot.
        counts: classes, objects and images that trainings have.

    Raises:
        SpecError: if the option cannot follow the steps that led to ``state``, or could teach nothing behind them.
    """
    if option.only and state.layout not in option.only:
        raise SpecError(
            f"{slot.kind} '{option.label}' is offered for {' or '.join(option.only)} only, but gets {state.layout}."
        )
    if option.step.name == IDENTITY:
        return state
    # Free parameters are drawn after the option is chosen, so that its signature may not depend on them.
    settings = None if option.free else option.step.settings(slot.kind)
    operator = operator_of(slot.kind, option.step.name)
    after = flow(state, operator, settings)
    if why := why_unmet(state, operator, counts):
        raise SpecError(f"{slot.kind} '{option.label}' {why}.")
    return after


def _decision_name(slot: Slot, offered: tuple[str, ...]) -> str:
    return slot.name if len(offered) == len(slot.options) else f"{slot.name}({'|'.join(offered)})"


def _choose_number(chooser: Chooser, name: str, domain: Domain) -> float:
    if isinstance(domain, Range):
        return chooser.number(name, domain.low, domain.high, log=domain.log)
    if len(domain.values) == 1:
        return float(domain.values[0])
    labels = tuple(f"{value:g}" for value in domain.values)
    return float(domain.values[labels.index(chooser.categorical(name, labels))])
