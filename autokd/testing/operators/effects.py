"""Checks of the effects that a row declares: which it adds, which it passes on, to which it is blind.

The signatures refuse pairs of steps by these declarations, so a false one hides a useful distiller or admits a step
that does nothing.

Legend: S samples, C channels, H x W cells.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor, nn

from autokd.distill.feature_pair import FeaturePair
from autokd.spec.operator import DISTRIBUTIONS, LOGITS, Effect, Operator
from autokd.testing.operators import samples
from autokd.testing.operators.probes import disturbed, expect


class _Draws:
    """Positive random factors of given shapes; the same sequence for every check."""

    def __init__(self) -> None:
        self._generator = torch.Generator().manual_seed(11)

    def maps(self) -> tuple[Tensor, Tensor]:
        student, teacher = torch.randn(2, 3, 4, 8, 8, generator=self._generator, dtype=torch.float64)
        return student, teacher

    def positive(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self._generator, dtype=torch.float64) * 2 + 0.5


_CHANGES: dict[Effect, Callable[[Tensor, _Draws], Tensor]] = {
    "cell_scale": lambda x, draws: x * draws.positive(len(x), 1, *x.shape[2:]),
    "channel_affine": lambda x, draws: x * draws.positive(1, x.shape[1], 1, 1) + draws.positive(1, x.shape[1], 1, 1),
    "sample_channel_scale": lambda x, draws: x * draws.positive(len(x), x.shape[1], 1, 1),
    "sample_channel_affine": lambda x, draws: (
        x * draws.positive(len(x), x.shape[1], 1, 1) + draws.positive(len(x), x.shape[1], 1, 1)
    ),
    "position_scale": lambda x, draws: x * draws.positive(1, *x.shape[1:]),
    "class_affine": lambda x, draws: (
        x * draws.positive(len(x), 1, *x.shape[2:]) + draws.positive(len(x), 1, *x.shape[2:])
    ),
}
"""Every effect but ``grouping`` as a random change of a map."""


def _concerns(effect: Effect, row: Operator) -> bool:
    """Whether a step before the operator can leave the effect pending."""
    return effect != "class_affine" or LOGITS in row.takes


def _has_equal_ratios(before: Tensor, after: Tensor, like: Callable[[Tensor], Tensor]) -> bool:
    ratio = after / before
    return bool((ratio > 0).all()) and torch.allclose(ratio, like(ratio).expand_as(ratio))


def _is_affine(x: Tensor, y: Tensor) -> bool:
    """Whether each row of y is a positive multiple of the row of x, shifted."""
    slope = torch.linalg.lstsq(torch.stack([x, torch.ones_like(x)], -1), y[..., None]).solution
    fitted = torch.stack([x, torch.ones_like(x)], -1) @ slope
    return bool((slope[:, 0] > 0).all()) and torch.allclose(fitted[..., 0], y)


_IS_CHANGE: dict[Effect, Callable[[Tensor, Tensor], bool]] = {
    "cell_scale": lambda x, y: _has_equal_ratios(x, y, lambda ratio: ratio[:, :1]),
    "channel_affine": lambda x, y: _is_affine(*(side.transpose(0, 1).flatten(1) for side in (x, y))),
    "sample_channel_scale": lambda x, y: _has_equal_ratios(x, y, lambda ratio: ratio[..., :1, :1]),
    "sample_channel_affine": lambda x, y: _is_affine(*(side.flatten(0, 1).flatten(1) for side in (x, y))),
    "position_scale": lambda x, y: _has_equal_ratios(x, y, lambda ratio: ratio[:1]),
    "class_affine": lambda x, y: _is_affine(*(side.movedim(1, -1).flatten(0, -2) for side in (x, y))),
}


def adds_what_it_declares(row: Operator) -> None:
    """The transformation changes nothing but what an added effect allows."""
    draws = _Draws()
    x, _ = draws.maps()
    for effect in sorted(row.adds):
        if effect == "grouping":
            holds = sorted(_operate(row, x).flatten().tolist()) == sorted(x.flatten().tolist())
        else:
            holds = _IS_CHANGE[effect](x, _operate(row, x))
        expect(holds, row, f"it changes more than the effect {effect!r} says, which it adds")


def passes_on_what_it_keeps(row: Operator) -> None:
    """The transformation commutes with an effect that it keeps."""
    draws = _Draws()
    x, _ = draws.maps()
    for effect in sorted(row.keeps):
        if effect == "grouping":
            holds = torch.allclose(_operate(row, _in_patches(x)), _in_patches(_operate(row, x)))
        else:
            holds = _IS_CHANGE[effect](_operate(row, x), _operate(row, _CHANGES[effect](x, draws)))
        expect(holds, row, f"it does not pass the effect {effect!r} on, which it keeps")


def undoes_what_it_is_blind_to(row: Operator) -> None:
    """The transformation gives the same with and without an effect that it is blind to."""
    draws = _Draws()
    x, _ = draws.maps()
    for effect in sorted(row.blind_to):
        if effect == "grouping" and row.divides_side:  # cut in halves twice, it is cut in fourths
            fourths, twice = _operate(row, x, **{row.divides_side: 4}), _operate(row, _in_patches(x))
            holds = _as_a_set(fourths) == _as_a_set(twice)
        elif effect == "grouping":
            holds = _as_a_set(_operate(row, _in_patches(x))) == _as_a_set(_operate(row, x))
        else:
            holds = torch.allclose(_operate(row, _CHANGES[effect](x, draws)), _operate(row, x), atol=1e-5)
        expect(holds, row, f"it sees the effect {effect!r}, to which it is declared blind")


def sees_what_it_does_not_declare(row: Operator) -> None:
    """The transformation is not blind to an effect, and does not pass one on, without declaring it."""
    draws = _Draws()
    x, _ = draws.maps()
    for effect, change in _CHANGES.items():
        if effect in row.blind_to or not _concerns(effect, row):
            continue
        before, after = _operate(row, x), _operate(row, change(x, draws))
        expect(not torch.allclose(after, before, rtol=1e-3), row, f"it undoes {effect!r}, and is not declared blind")
        # Of one positive number a cell, every change is one of scale; through three points there is always a line.
        tells_nothing = after.shape[1] == 1 and (effect == "cell_scale" or after.numel() <= 3)
        # Log-probabilities are logits, shifted; a distance compares the probabilities, which show the change.
        tells_nothing |= effect == "class_affine" and row.gives in DISTRIBUTIONS
        if effect not in row.keeps | row.adds and not tells_nothing:
            passes_on = _IS_CHANGE[effect](before, after)
            expect(not passes_on, row, f"it passes {effect!r} on, and does not declare that it keeps it")


def is_a_distance_blind_as_declared(row: Operator) -> None:
    """The distance does not change with an effect that its row keeps or is blind to."""
    draws = _Draws()
    distance = samples.operator("distance", row.name)
    for effect in sorted(row.keeps | row.blind_to):
        for layout in row.takes:
            student, teacher = (samples.as_layout(x, layout) for x in draws.maps())
            if effect == "grouping" and layout in ("map", "channel_distribution", "binary"):
                changed = _patches()(samples.piece(student, teacher, None, layout), samples.NO_INPUTS)
            elif effect != "grouping" and layout == "map":
                change = _CHANGES[effect]
                changed = samples.piece(change(student, draws), change(teacher, draws))
            else:
                continue  # no transformation regroups the cells of another layout; a distribution cannot be scaled
            before = _value(distance, samples.piece(student, teacher, None, layout))
            holds = abs(_value(distance, changed) - before) <= 1e-6 * abs(before)
            expect(holds, row, f"it changes with {effect!r}, to which it is declared blind", layout)


def is_a_distance_that_sees_the_rest(row: Operator) -> None:
    """The distance on maps changes with every effect that its row neither keeps nor is blind to."""
    if "map" not in row.takes:
        return
    draws = _Draws()
    student, teacher = draws.maps()
    distance = samples.operator("distance", row.name)
    before = _value(distance, samples.piece(student, teacher))
    for effect, change in _CHANGES.items():
        if effect in row.keeps | row.blind_to or not _concerns(effect, row):
            continue
        after = _value(distance, samples.piece(change(student, draws), change(teacher, draws)))
        expect(abs(after - before) > 1e-5 * abs(before), row, f"it is blind to {effect!r}, and does not declare it")


def _operate(row: Operator, x: Tensor, **params: float) -> Tensor:
    transform = disturbed(samples.operator("transform", row.name, 4, **params).to(x.dtype), 1.0)
    layout = "map" if "map" in row.takes else row.takes[0]
    changed: FeaturePair = transform(samples.piece(x, x, None, layout), samples.NO_INPUTS)
    return changed.student_SCHW


@lru_cache(maxsize=1)
def _patches() -> nn.Module:
    return samples.operator("transform", "local_patches", grid=2)


def _in_patches(x: Tensor) -> Tensor:
    changed: FeaturePair = _patches()(samples.piece(x, x), samples.NO_INPUTS)
    return changed.student_SCHW


def _as_a_set(x: Tensor) -> list[tuple[float, ...]]:
    return sorted(map(tuple, x.flatten(1).tolist()))


def _value(distance: nn.Module, features: FeaturePair) -> float:
    return float(distance(features, samples.NO_INPUTS))


CHECKS_OF_TRANSFORMS = (
    adds_what_it_declares,
    passes_on_what_it_keeps,
    undoes_what_it_is_blind_to,
    sees_what_it_does_not_declare,
)
CHECKS_OF_DISTANCES = (is_a_distance_blind_as_declared, is_a_distance_that_sees_the_rest)
