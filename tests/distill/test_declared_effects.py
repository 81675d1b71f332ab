"""What the vocabulary declares about effects is true: who adds one, who passes it on, who is blind to it.

The signatures refuse pairs of steps by these declarations, so a false one would hide a useful distiller or admit a
step that does nothing.

Legend: S samples, C channels, H x W cells.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from autokd.distill.feature_pair import FeaturePair
from autokd.spec import DISTANCES, TRANSFORMS, Operator
from tests.support import distill_cases as cases

GENERATOR = torch.Generator().manual_seed(11)
X, Y = torch.randn(2, 3, 4, 8, 8, generator=GENERATOR, dtype=torch.float64)


def positive(*shape: int) -> Tensor:
    return torch.rand(shape, generator=GENERATOR, dtype=torch.float64) * 2 + 0.5


CHANGES = {
    "cell_scale": lambda x: x * positive(len(x), 1, *x.shape[2:]),
    "channel_affine": lambda x: x * positive(1, x.shape[1], 1, 1) + positive(1, x.shape[1], 1, 1),
    "sample_channel_scale": lambda x: x * positive(len(x), x.shape[1], 1, 1),
    "sample_channel_affine": lambda x: x * positive(len(x), x.shape[1], 1, 1) + positive(len(x), x.shape[1], 1, 1),
    "position_scale": lambda x: x * positive(1, *x.shape[1:]),
}


def is_cell_scale(before: Tensor, after: Tensor) -> bool:
    ratio = after / before
    return bool((ratio > 0).all()) and torch.allclose(ratio, ratio[:, :1].expand_as(ratio))


def is_channel_affine(before: Tensor, after: Tensor) -> bool:
    return is_affine(*(side.transpose(0, 1).flatten(1) for side in (before, after)))


def is_sample_channel_affine(before: Tensor, after: Tensor) -> bool:
    return is_affine(*(side.flatten(0, 1).flatten(1) for side in (before, after)))


def is_affine(x: Tensor, y: Tensor) -> bool:
    """Whether each row of y is a positive multiple of the row of x, shifted."""
    slope = torch.linalg.lstsq(torch.stack([x, torch.ones_like(x)], -1), y[..., None]).solution
    fitted = torch.stack([x, torch.ones_like(x)], -1) @ slope
    return bool((slope[:, 0] > 0).all()) and torch.allclose(fitted[..., 0], y)


def is_sample_channel_scale(before: Tensor, after: Tensor) -> bool:
    ratio = after / before
    return bool((ratio > 0).all()) and torch.allclose(ratio, ratio[..., :1, :1].expand_as(ratio))


def is_position_scale(before: Tensor, after: Tensor) -> bool:
    ratio = after / before
    return bool((ratio > 0).all()) and torch.allclose(ratio, ratio[:1].expand_as(ratio))


IS_CHANGE = {
    "cell_scale": is_cell_scale,
    "channel_affine": is_channel_affine,
    "sample_channel_scale": is_sample_channel_scale,
    "sample_channel_affine": is_sample_channel_affine,
    "position_scale": is_position_scale,
}
PATCHES = cases.operator("transform", "local_patches", grid=2)


def operate(row: Operator, x: Tensor) -> Tensor:
    transform = cases.operator("transform", row.name).to(x.dtype)
    with torch.no_grad():  # a learned part may start as the identity
        for parameter in transform.parameters():
            parameter += torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5), dtype=x.dtype)
    layout = "map" if "map" in row.takes else row.takes[0]
    return transform(cases.piece(x, x, None, layout), cases.NO_INPUTS).student_SCHW


def patched(x: Tensor) -> Tensor:
    return PATCHES(cases.piece(x, x), cases.NO_INPUTS).student_SCHW


def declared(field: str, table: dict[str, Operator]) -> list[tuple[str, str]]:
    return [(effect, name) for name, row in table.items() for effect in sorted(getattr(row, field))]


@pytest.mark.parametrize(("effect", "name"), declared("adds", TRANSFORMS))
def test_a_step_that_adds_an_effect_changes_only_what_the_effect_says(effect, name):
    if effect == "grouping":
        assert sorted(patched(X).flatten().tolist()) == sorted(X.flatten().tolist())
    else:
        assert IS_CHANGE[effect](X, operate(TRANSFORMS[name], X))


@pytest.mark.parametrize(("effect", "name"), declared("keeps", TRANSFORMS))
def test_a_step_that_keeps_an_effect_commutes_with_it(effect, name):
    row = TRANSFORMS[name]
    if effect == "grouping":
        assert torch.allclose(operate(row, patched(X)), patched(operate(row, X)))
    else:
        assert IS_CHANGE[effect](operate(row, X), operate(row, CHANGES[effect](X)))


@pytest.mark.parametrize(("effect", "name"), declared("blind_to", TRANSFORMS))
def test_a_step_that_is_blind_to_an_effect_undoes_it(effect, name):
    row = TRANSFORMS[name]
    if effect == "grouping":
        fourths = cases.operator("transform", name, grid=4)(cases.piece(X, X), cases.NO_INPUTS).student_SCHW
        assert sorted(map(tuple, patched(patched(X)).flatten(1).tolist())) == sorted(
            map(tuple, fourths.flatten(1).tolist())
        )
    else:
        assert torch.allclose(operate(row, CHANGES[effect](X)), operate(row, X), atol=1e-5)


@pytest.mark.parametrize("field", ["keeps", "blind_to"])
@pytest.mark.parametrize("name", DISTANCES)
def test_a_distance_is_blind_to_every_effect_that_it_declares(name, field):
    distance = cases.operator("distance", name)
    for effect in getattr(DISTANCES[name], field):
        for layout in DISTANCES[name].takes:
            student, teacher = cases.as_layout(X, layout), cases.as_layout(Y, layout)
            if effect == "grouping":
                if layout not in ("map", "channel_distribution", "binary"):
                    continue  # nothing groups the cells of another layout: no transform takes it
                changed = PATCHES(cases.piece(student, teacher, None, layout), cases.NO_INPUTS)
            elif layout == "map":
                changed = cases.piece(CHANGES[effect](student), CHANGES[effect](teacher))
            else:
                continue  # a distribution cannot be scaled
            before = value_of(distance, cases.piece(student, teacher, None, layout))
            assert value_of(distance, changed) == pytest.approx(before, rel=1e-6)


@pytest.mark.parametrize("effect", CHANGES)
@pytest.mark.parametrize("name", [name for name, row in DISTANCES.items() if "map" in row.takes])
def test_a_distance_sees_every_effect_that_it_does_not_declare(name, effect):
    if effect in DISTANCES[name].keeps | DISTANCES[name].blind_to:
        return
    distance = cases.operator("distance", name)
    changed = cases.piece(CHANGES[effect](X), CHANGES[effect](Y))
    assert value_of(distance, changed) != pytest.approx(value_of(distance, cases.piece(X, Y)), rel=1e-5)


def value_of(distance: torch.nn.Module, features: FeaturePair) -> float:
    return float(distance(features, cases.NO_INPUTS))


@pytest.mark.parametrize("effect", CHANGES)
@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_step_sees_every_effect_that_it_does_not_declare(name, effect):
    row = TRANSFORMS[name]
    if effect in row.blind_to:
        return
    before, after = operate(row, X), operate(row, CHANGES[effect](X))
    assert not torch.allclose(after, before, rtol=1e-3), "undone, but not declared blind"
    # Of one positive number a cell, every change is one of scale; through three points there is always a line.
    tells_nothing = after.shape[1] == 1 and (effect == "cell_scale" or after.numel() <= 3)
    if effect not in row.keeps | row.adds and not tells_nothing:
        assert not IS_CHANGE[effect](before, after), "passed on, but not declared kept"
