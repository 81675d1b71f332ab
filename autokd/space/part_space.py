"""A space of sums of parts: published distillers at multiples of their calibrated strengths, and free terms.

The walk asks first which family, then which part, then its strength, then whether to add one:

    p1.family -> p1.part.FAMILY -> p1.strength -> p1.schedule -> p2.more -> p2.family -> ...
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from math import comb
from typing import TYPE_CHECKING, Any, cast

from autokd.presets import load_preset
from autokd.space.chooser import Chooser, RandomChooser
from autokd.space.count import count_specs
from autokd.space.slots import Path
from autokd.space.space import Space
from autokd.spec import DistillerSpec, TermSpec
from autokd.spec.terms import Schedule

if TYPE_CHECKING:
    import numpy

FREE = "free"
"""Name of the family of free terms of operators, and of their one part."""
STOP, ADD = "stop", "add"
PUBLISHED = "@published"
"""End of the label of a part with its published weights."""


@dataclass(frozen=True)
class Part:
    """A published distiller as a summand.

    Args:
        preset: name of the preset.
        family: family of parts that it is in.
        gradient_ratio: gradient ratio at strength 1, shared by its terms; None: the published weights.
        terms: its terms at strength 1, canonical.
    """

    preset: str
    family: str
    gradient_ratio: float | None
    terms: tuple[TermSpec, ...]

    @property
    def label(self) -> str:
        """The value of the decision that takes this part, e.g. "cwd" or "cwd@published"."""
        return self.preset if self.gradient_ratio is not None else self.preset + PUBLISHED

    @property
    def is_constant(self) -> bool:
        """Whether every term keeps its weight throughout a training, so that another schedule may be chosen."""
        return all(term.weight.schedule == "constant" for term in self.terms)

    def scaled(self, strength: float, schedule: str = "constant") -> tuple[TermSpec, ...]:
        """Return the terms at a multiple of their strength.

        Args:
            strength: the multiple.
            schedule: schedule of the weights; "constant" leaves the preset's own.
        """
        changed: dict[str, Any] = {} if schedule == "constant" else {"schedule": cast(Schedule, schedule)}
        return tuple(
            replace(term, weight=replace(term.weight, value=term.weight.value * strength, **changed))
            for term in self.terms
        )

    def for_detectors(self, detector_family: str | None) -> Part:
        """Return the same part with the terms and weights that were published for a family of detectors.

        Args:
            detector_family: family of the student; None: each preset's default.
        """
        return make_part(self.preset, self.family, self.gradient_ratio, detector_family)


@lru_cache(maxsize=512)
def make_part(preset: str, family: str, gradient_ratio: float | None, detector_family: str | None = None) -> Part:
    """Return a preset as a part.

    Args:
        preset: name of the preset.
        family: family of parts that it is in.
        gradient_ratio: gradient ratio at strength 1, shared by its terms; None: the published weights.
        detector_family: family of detectors whose terms and weights it has; None: the preset's default.
    """
    spec = load_preset(preset, detector_family)
    if gradient_ratio is not None:
        spec = spec.with_gradient_ratio(gradient_ratio)
    return Part(preset, family, gradient_ratio, spec.canonical().terms)


@dataclass(frozen=True)
class Summand:
    """A part as it is taken in a sum.

    Args:
        part: label of the part; ``FREE`` for a free term.
        strength: multiple of its calibrated strength.
        schedule: schedule of its weights; "constant" leaves the preset's own.
        term: of a free term, the term at strength 1.
        path: of a free term, its path through the slots.
    """

    part: str
    strength: float = 1.0
    schedule: str = "constant"
    term: TermSpec | None = None
    path: Path = ()


@dataclass(frozen=True)
class PartSpace:
    """A tree of choices whose leaves are sums of parts.

    Args:
        parts: the published parts, those of a family one after the other.
        strengths: multiples of a part's calibrated strength.
        schedules: schedules of a part's weights; those with one of their own keep it.
        min_parts: smallest number of parts of a sum.
        max_parts: largest number of parts of a sum.
        free: the space of one free term, at its calibrated gradient ratio; None: there are no free terms.
        document: the plain data that the space was read from, defaults written out; None for a part of a space.
    """

    parts: tuple[Part, ...]
    strengths: tuple[float, ...]
    schedules: tuple[str, ...] = ("constant",)
    min_parts: int = 1
    max_parts: int = 4
    free: Space | None = None
    document: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)

    @property
    def families(self) -> tuple[str, ...]:
        """Families of parts, free terms last."""
        named = tuple(dict.fromkeys(part.family for part in self.parts))
        return named if self.free is None else (*named, FREE)

    @property
    def strength_labels(self) -> tuple[str, ...]:
        """Values of the decision for a strength."""
        return tuple(f"{strength:g}" for strength in self.strengths)

    def part(self, label: str) -> Part | None:
        """Return the part of a label; None if there is none.

        Args:
            label: its label.
        """
        return next((part for part in self.parts if part.label == label), None)

    def schedules_of(self, part: Part | None) -> tuple[str, ...]:
        """Return the schedules that a part may have.

        Args:
            part: the part; None: a free term.
        """
        return self.schedules if part is None or part.is_constant else ("constant",)

    def for_detectors(self, detector_family: str | None) -> PartSpace:
        """Return the same space with the weights that were published for a family of detectors.

        Args:
            detector_family: family of the student; None: each preset's default.
        """
        return replace(self, parts=tuple(part.for_detectors(detector_family) for part in self.parts))

    def walk(self, chooser: Chooser) -> DistillerSpec:
        """Make every decision through ``chooser``, each depending on those before it.

        Args:
            chooser: is asked once a decision, in a fixed order; a decision with a single option is not asked for.

        Returns:
            The canonical spec at the end of the walk.
        """
        return self.sum_of(self.walk_parts(chooser))

    def walk_parts(self, chooser: Chooser) -> list[Summand]:
        """As ``walk``; return the parts of the sum, in the order in which they were chosen.

        Args:
            chooser: is asked once a decision.
        """
        taken: list[Summand] = []
        for index in range(1, self.max_parts + 1):
            offered = self._offered(taken)
            if not offered:
                break
            if index > self.min_parts and chooser.categorical(f"p{index}.more", (STOP, ADD)) == STOP:
                break
            taken.append(self._walk_part(chooser, f"p{index}", offered, taken))
        return taken

    def sum_of(self, summands: Iterable[Summand]) -> DistillerSpec:
        """Return the distiller that is a sum of parts.

        Args:
            summands: parts of this space, one or more.
        """
        terms: list[TermSpec] = []
        for each in summands:
            part = self.part(each.part)
            if part is None:
                assert each.term is not None, f"{each.part!r} is no part of this space"
                part = Part(FREE, FREE, each.term.weight.value, (each.term,))
            terms += part.scaled(each.strength, each.schedule)
        return DistillerSpec(tuple(terms)).canonical()

    def single_presets(self) -> Iterator[DistillerSpec]:
        """Yield every distiller that is one published part, at every strength, with its own schedule."""
        for part in self.parts:
            for strength in self.strengths:
                yield self.sum_of([Summand(part.label, strength)])

    def sample(self, rng: numpy.random.Generator) -> DistillerSpec:
        """Return a random spec, for which every decision is uniform over what it offers.

        Args:
            rng: source of random numbers.
        """
        return self.walk(RandomChooser(rng))

    def count(self) -> int:
        """Return the number of sums; a free number of a range counts once, a distiller that is two sums twice."""
        per_preset: dict[str, int] = {}
        for part in self.parts:
            choices = len(self.strengths) * len(self.schedules_of(part))
            per_preset[part.preset] = per_preset.get(part.preset, 0) + choices
        sums = [1] + [0] * self.max_parts
        for choices in per_preset.values():
            sums = [sums[n] + (choices * sums[n - 1] if n else 0) for n in range(self.max_parts + 1)]
        if self.free is not None:
            forms, each = count_specs(self.free), len(self.strengths) * len(self.schedules)
            of_free = [comb(forms, n) * each**n for n in range(self.max_parts + 1)]
            sums = [sum(sums[n - k] * of_free[k] for k in range(n + 1)) for n in range(self.max_parts + 1)]
        return sum(sums[self.min_parts :])

    def _offered(self, taken: Sequence[Summand]) -> dict[str, tuple[str, ...]]:
        """Return family -> labels of the parts that are left; a preset is taken once a sum, with either weights."""
        presets = {part.preset for each in taken if (part := self.part(each.part)) is not None}
        offered: dict[str, tuple[str, ...]] = {}
        for part in self.parts:
            if part.preset not in presets:
                offered[part.family] = (*offered.get(part.family, ()), part.label)
        if self.free is not None and self.free.has_left([each.path for each in taken if each.path]):
            offered[FREE] = (FREE,)
        return offered

    def _walk_part(
        self, chooser: Chooser, prefix: str, offered: Mapping[str, tuple[str, ...]], taken: Sequence[Summand]
    ) -> Summand:
        family = _choose(chooser, f"{prefix}.family", tuple(offered), self.families)
        if family == FREE:
            assert self.free is not None, "it is offered"
            paths = [each.path for each in taken if each.path]
            term, path = self.free.walk_term(chooser, f"{prefix}.{FREE}", paths)
            strength, schedule = self._walk_strength(chooser, prefix, None)
            return Summand(FREE, strength, schedule, term, path)
        every = tuple(part.label for part in self.parts if part.family == family)
        label = _choose(chooser, f"{prefix}.part.{family}", offered[family], every)
        strength, schedule = self._walk_strength(chooser, prefix, self.part(label))
        return Summand(label, strength, schedule)

    def _walk_strength(self, chooser: Chooser, prefix: str, part: Part | None) -> tuple[float, str]:
        labels, schedules = self.strength_labels, self.schedules_of(part)
        chosen = _choose(chooser, f"{prefix}.strength", labels, labels)
        schedule = _choose(chooser, f"{prefix}.schedule", schedules, schedules)
        return self.strengths[labels.index(chosen)], schedule


AnySpace = Space | PartSpace
"""A space of terms of operators, or one of sums of parts."""


def count_distillers(space: AnySpace) -> int:
    """Return the size of a space: its distinct distillers, or its sums of parts.

    Args:
        space: the space.
    """
    return space.count() if isinstance(space, PartSpace) else count_specs(space)


def size_words(space: AnySpace) -> str:
    """Return the size of a space as a sentence.

    Args:
        space: the space.
    """
    number = f"{count_distillers(space):,}"
    if isinstance(space, PartSpace):
        presets = len({part.preset for part in space.parts})
        free = "" if space.free is None else " and free terms"
        return f"space: {number} sums of {space.min_parts} to {space.max_parts} parts, of {presets} presets{free}"
    return f"space: {number} distinct distillers (a range of numbers counts as one)"


def _choose(chooser: Chooser, name: str, offered: tuple[str, ...], every: tuple[str, ...]) -> str:
    if len(offered) == 1:
        return offered[0]
    return chooser.categorical(name if offered == every else f"{name}({'|'.join(offered)})", offered)
