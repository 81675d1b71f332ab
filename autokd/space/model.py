"""The space: what a distiller may be, and the one walk through it, decision by decision."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import comb
from typing import TYPE_CHECKING, Any, Protocol, cast

from autokd.errors import SpaceError, SpecError
from autokd.space.domains import Choices, Domain, Range
from autokd.space.supply import why_lacking
from autokd.spec import DistillerSpec, FlowState, Step, TermSpec, Weight, flow, operator_of
from autokd.spec.operator import Kind, Layout, Number
from autokd.spec.terms import Layers, Schedule
from autokd.spec.vocabulary import IDENTITY

if TYPE_CHECKING:
    import numpy


class Chooser(Protocol):
    """Answers decisions; an Optuna trial, a random generator or a script stands behind it."""

    def categorical(self, name: str, options: tuple[str, ...]) -> str: ...

    def number(self, name: str, low: float, high: float, *, log: bool) -> float: ...


@dataclass(frozen=True, slots=True)
class Option:
    """One alternative of a slot: an operator with fixed numbers and, perhaps, numbers left to be chosen."""

    step: Step
    free: tuple[tuple[str, Range], ...] = ()
    only: tuple[Layout, ...] = ()
    """What the space offers it for; empty: all that its operator takes."""

    @property
    def label(self) -> str:
        """What the decision's value is called, e.g. "max_pool[window=4]"."""
        settings = ",".join(f"{name}={value:g}" for name, value in self.step.params)
        return f"{self.step.name}[{settings}]" if settings else self.step.name

    def __str__(self) -> str:
        """The label with what is left to be chosen, and what it is restricted to."""
        free = "".join(f" ({name} {domain})" for name, domain in self.free)
        return f"{self.label}{free}" + (f" (only {' or '.join(self.only)})" if self.only else "")


@dataclass(frozen=True, slots=True)
class Slot:
    """A decision of a term: its name, the kind of operator, the alternatives."""

    name: str
    kind: Kind
    options: tuple[Option, ...]

    def option(self, label: str) -> Option:
        return next(option for option in self.options if option.label == label)


Path = tuple[str, ...]
"""The labels of a term's decisions: source, one for each slot of transformations, distance."""


@dataclass(frozen=True)
class Space:
    """A tree of choices: so many terms; for each a source, a step from every slot, a distance, a weight.

    Only well-typed paths are offered (``autokd.spec.signature``): at each decision those options that some
    completion allows. A decision whose options are fewer than the slot's carries them in its name, so that
    decisions of one name always offer the same options, as Optuna demands. No two terms of a sample are equal.
    """

    min_terms: int
    max_terms: int
    slots: tuple[Slot, ...]
    """Source, then the slots of transformations in order, then distance."""
    strength: Domain
    schedules: tuple[Schedule, ...] = ("constant",)
    layers: tuple[Layers, ...] = ("equal",)
    """How levels may share a term's weight; for sources of a single piece that is no question."""

    # ------------------------------------------------------------------------------------- walking

    def walk(self, chooser: Chooser) -> DistillerSpec:
        """Make every decision through ``chooser``, each depending on those above it; return the spec."""
        counts = tuple(str(n) for n in range(self.min_terms, self.max_terms + 1))
        count = int(chooser.categorical("terms", counts)) if len(counts) > 1 else self.min_terms
        terms: list[TermSpec] = []
        taken: list[Path] = []
        for index in range(1, count + 1):
            term, path = self._walk_term(chooser, f"t{index}", taken)
            terms.append(term)
            taken.append(path)
        return DistillerSpec(tuple(terms)).canonical()

    def sample(self, rng: numpy.random.Generator) -> DistillerSpec:
        """Draw a spec: every decision uniform over what it offers."""
        return self.walk(_RandomChooser(rng))

    def _walk_term(self, chooser: Chooser, prefix: str, taken: list[Path]) -> tuple[TermSpec, Path]:
        state = FlowState()
        path: Path = ()
        steps: list[Step] = []
        for index, slot in enumerate(self.slots):
            offered = self._offered(index, state, path, taken)
            if len(offered) > 1:
                label = chooser.categorical(f"{prefix}.{self._decision(slot, offered)}", offered)
            else:
                [label] = offered
            option = slot.option(label)
            drawn = {name: self._number(chooser, f"{prefix}.{slot.name}.{option.step.name}.{name}", domain)
                     for name, domain in option.free}  # fmt: skip
            steps.append(Step.of(option.step.name, **(dict(option.step.params) | drawn)))
            path = (*path, label)
            state = self.advanced(state, slot, option)
        source, *transforms, distance = steps
        written = tuple(step for step in transforms if step.name != IDENTITY)
        return TermSpec(source, written, distance, self._walk_weight(chooser, prefix, source)), path

    def _walk_weight(self, chooser: Chooser, prefix: str, source: Step) -> Weight:
        strength = self._number(chooser, f"{prefix}.strength", self.strength)
        schedule, layers = self.schedules[0], self.layers_of(source)[0]
        if len(self.schedules) > 1:
            schedule = cast(Schedule, chooser.categorical(f"{prefix}.schedule", self.schedules))
        if len(self.layers_of(source)) > 1:
            layers = cast(Layers, chooser.categorical(f"{prefix}.layers", self.layers))
        return Weight("relative", strength, schedule, layers)

    def layers_of(self, source: Step) -> tuple[Layers, ...]:
        """The ways in which the levels of a term with this source may share its weight."""
        return self.layers if operator_of("source", source.name).by_level else ("equal",)

    @staticmethod
    def _number(chooser: Chooser, name: str, domain: Domain) -> float:
        if isinstance(domain, Range):
            return chooser.number(name, domain.low, domain.high, log=domain.log)
        if len(domain.values) == 1:
            return float(domain.values[0])
        labels = tuple(f"{value:g}" for value in domain.values)
        return float(domain.values[labels.index(chooser.categorical(name, labels))])

    @staticmethod
    def _decision(slot: Slot, offered: tuple[str, ...]) -> str:
        return slot.name if len(offered) == len(slot.options) else f"{slot.name}({'|'.join(offered)})"

    # ----------------------------------------------------------------------------------- what is offered

    def _offered(self, index: int, state: FlowState, path: Path, taken: Iterable[Path]) -> tuple[str, ...]:
        """Labels at slot ``index`` from which at least one term can be completed that is not taken yet."""
        offered = []
        for label, next_state, completions in self._successors(index, state):
            used = sum(other[: index + 1] == (*path, label) and self._is_discrete(other) for other in taken)
            if completions > used and next_state is not None:
                offered.append(label)
        return tuple(offered)

    def _successors(self, index: int, state: FlowState) -> list[tuple[str, FlowState | None, int]]:
        """(label, state after it, number of well-typed completions) for every option of a slot."""
        key = (index, state)
        if key not in self._memory:
            slot = self.slots[index]
            found: list[tuple[str, FlowState | None, int]] = []
            for option in slot.options:
                try:
                    after = self.advanced(state, slot, option)
                except SpecError:
                    found.append((option.label, None, 0))
                    continue
                found.append((option.label, after, self._completions(index + 1, after)))
            self._memory[key] = found
        return self._memory[key]

    def _completions(self, index: int, state: FlowState) -> int:
        if index == len(self.slots):
            return 1
        return sum(completions for _, _, completions in self._successors(index, state))

    @cached_property
    def _memory(self) -> dict[tuple[int, FlowState], list[tuple[str, FlowState | None, int]]]:
        return {}

    @staticmethod
    def advanced(state: FlowState, slot: Slot, option: Option) -> FlowState:
        """The state after an option of a slot; SpecError if it cannot stand there."""
        if option.only and state.layout not in option.only:
            raise SpecError(
                f"{slot.kind} '{option.label}' is offered for {' or '.join(option.only)} only, but gets {state.layout}."
            )
        if option.step.name == IDENTITY:
            return state
        settings = None if option.free else option.step.settings(slot.kind)
        return flow(state, operator_of(slot.kind, option.step.name), settings)

    def _is_discrete(self, path: Path) -> bool:
        return not any(slot.option(label).free for slot, label in zip(self.slots, path, strict=True))

    def unreachable(self) -> list[tuple[Slot, Option]]:
        """Options that no well-typed term uses."""
        states = {FlowState()}
        stranded = []
        for index, slot in enumerate(self.slots):
            found = [successor for state in states for successor in self._successors(index, state)]
            used = {label for label, _, completions in found if completions}
            stranded += [(slot, option) for option in slot.options if option.label not in used]
            states = {after for _, after, completions in found if completions and after is not None}
        return stranded

    # -------------------------------------------------------------------------------------- counting

    def paths(self) -> Iterator[Path]:
        """Every well-typed sequence of labels of one term."""
        yield from self._paths_from(0, FlowState(), ())

    def _paths_from(self, index: int, state: FlowState, path: Path) -> Iterator[Path]:
        if index == len(self.slots):
            yield path
            return
        for label, after, completions in self._successors(index, state):
            if completions and after is not None:
                yield from self._paths_from(index + 1, after, (*path, label))

    def forms(self) -> list[TermSpec]:
        """Every distinct term apart from its weight; numbers in a range stand at the range's low end."""
        weight = Weight("relative", 1.0)
        return [TermSpec(steps[0], steps[1:-1], steps[-1], weight).canonical() for steps in self._distinct_steps()]

    def _distinct_steps(self) -> dict[tuple[Step, ...], None]:
        """The steps of every form, written out; paths that differ in identity steps alone give the same."""
        written: list[dict[str, tuple[Step, ...]]] = [
            {option.label: _written_out(slot.kind, option) for option in slot.options} for slot in self.slots
        ]
        paths = (tuple(table[label] for table, label in zip(written, path)) for path in self.paths())
        return {tuple(itertools.chain.from_iterable(steps)): None for steps in paths}

    def count(self) -> int:
        """How many distinct canonical specs there are; a range of numbers counts as one."""
        num_weights = (len(self.strength.values) if isinstance(self.strength, Choices) else 1) * len(self.schedules)
        forms = Counter(num_weights * len(self.layers_of(steps[0])) for steps in self._distinct_steps())
        # The coefficient of x^n in the product of (1 + w x) over all forms: choose n forms, and a weight for each.
        coefficients = [1] + [0] * self.max_terms
        for weights, num_forms in forms.items():
            of_kind = [comb(num_forms, n) * weights**n for n in range(self.max_terms + 1)]
            coefficients = [
                sum(coefficients[i] * of_kind[n - i] for i in range(n + 1)) for n in range(self.max_terms + 1)
            ]
        return sum(coefficients[self.min_terms :])

    def specs(self) -> Iterator[DistillerSpec]:
        """Every spec of a space whose strengths are choices (ranges: the middle strength)."""
        strengths: tuple[Number, ...] = (
            self.strength.values if isinstance(self.strength, Choices) else (self.strength.clip(40.0),)
        )
        forms = self.forms()
        for n in range(self.min_terms, self.max_terms + 1):
            for chosen in itertools.combinations(forms, n):
                weights = (
                    [
                        Weight("relative", float(value), schedule, layers)
                        for value, schedule, layers in itertools.product(
                            strengths, self.schedules, self.layers_of(form.source)
                        )
                    ]
                    for form in chosen
                )
                for drawn in itertools.product(*weights):
                    terms = (replace(form, weight=weight) for form, weight in zip(chosen, drawn, strict=True))
                    yield DistillerSpec(tuple(terms)).canonical()

    # ------------------------------------------------------------------------------ a given spec, a given pair

    def validate(self, spec: DistillerSpec) -> None:
        """Raise SpaceError, saying what is not offered, unless ``spec`` lies in this space."""
        from autokd.space.locate import paths_of

        paths_of(self, spec)

    def with_offered_strengths(self, spec: DistillerSpec) -> DistillerSpec:
        """The same distiller with each strength moved to the nearest that the space offers."""
        terms = (
            replace(term, weight=replace(term.weight, value=float(self.strength.clip(term.weight.value))))
            for term in spec.terms
        )
        return replace(spec, terms=tuple(terms))

    def decisions(self, spec: DistillerSpec) -> dict[str, Any]:
        """The decisions (Optuna parameters) that lead to ``spec``, in the order of the walk; SpaceError if none do."""
        from autokd.space.locate import decisions_of

        return decisions_of(self, spec)

    def supplied_by(
        self, student: Iterable[str], *teachers: Iterable[str], unpaired: Mapping[str, str] | None = None
    ) -> tuple[Space, tuple[str, ...]]:
        """Return the part that a pair with these taps can supply, and a sentence for each option dropped.

        teachers: none means the same taps as the student's; of several, every one must supply what is kept.
        unpaired: taps that both have and that cannot be compared, with the reason.
        """
        taps_s = set(student)
        taps_t = [set(taps) for taps in teachers] or [taps_s]
        reasons: list[str] = []
        slots = []
        for slot in self.slots:
            kept = []
            for option in slot.options:
                is_step = option.step.name != IDENTITY
                operator = operator_of(slot.kind, option.step.name) if is_step else None
                if operator is not None and (why := why_lacking(operator, taps_s, taps_t, unpaired or {})):
                    reasons.append(f"{slot.kind} '{option.label}' {why}")
                else:
                    kept.append(option)
            slots.append(replace(slot, options=tuple(kept)))
        smaller = replace(self, slots=tuple(slots))
        if any(not slot.options for slot in slots) or not smaller._completions(0, FlowState()):
            raise SpaceError("This pair supplies nothing that the space asks for: " + "; ".join(reasons) + ".")
        stranded = smaller.unreachable()
        reasons += [f"{slot.kind} '{option.label}' has no step left that it fits" for slot, option in stranded]
        return smaller.without(stranded), tuple(reasons)

    def without(self, options: Iterable[tuple[Slot, Option]]) -> Space:
        """The space without these options of its slots."""
        dropped = {(slot.name, option.label) for slot, option in options}
        slots = (
            replace(slot, options=tuple(o for o in slot.options if (slot.name, o.label) not in dropped))
            for slot in self.slots
        )
        return replace(self, slots=tuple(slots))


def _written_out(kind: Kind, option: Option) -> tuple[Step, ...]:
    if option.step.name == IDENTITY:
        return ()
    free = {name: domain.low for name, domain in option.free}
    return (Step.of(option.step.name, **(dict(option.step.params) | free)).checked(kind),)


class _RandomChooser:
    def __init__(self, rng: numpy.random.Generator) -> None:
        self._rng = rng

    def categorical(self, name: str, options: tuple[str, ...]) -> str:
        return options[int(self._rng.integers(len(options)))]

    def number(self, name: str, low: float, high: float, *, log: bool) -> float:
        import math

        if log:
            return math.exp(self._rng.uniform(math.log(low), math.log(high)))
        return float(self._rng.uniform(low, high))
