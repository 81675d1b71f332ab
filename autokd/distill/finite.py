"""A check for NaN and infinity that takes one transfer from the device a step, and names what it finds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from autokd.distill.term_inputs import TermInputs
from autokd.errors import NonFiniteError


def summary(inputs: TermInputs, raw: Tensor) -> Tensor:
    """Return numbers on the device that are all finite if every tap that was read and every term is.

    A sum over a tap is not finite if any of its values is not; it may overflow on finite values too, which is why
    ``raise_if_not_finite`` looks again before it raises.
    """
    with torch.no_grad():
        taps = [tap for _, tap in _taps(inputs)]
        return torch.stack([tap.sum().float() for tap in taps] + list(raw.float().unbind()))


def _taps(inputs: TermInputs) -> Iterator[tuple[str, Tensor]]:
    """Every tap that was read, with its name."""
    for side, maps in (("student", inputs.student_maps), ("teacher", inputs.teacher_maps)):
        yield from ((f"{side} fpn {level}", map_BCHW) for level, map_BCHW in maps.items())
    for name, (student, teacher) in inputs.read_taps.items():
        yield f"student {name}", student
        yield f"teacher {name}", teacher
    yield from ((f"teacher {name}", tap) for name, tap in inputs.read_teacher_taps.items())
    yield from ((f"student {name}", tap) for name, tap in inputs.read_student_taps.items())


def raise_if_not_finite(numbers: Sequence[float], inputs: TermInputs, terms: Mapping[str, Tensor]) -> None:
    """Check a summary.

    Args:
        numbers: ``summary`` on the host.
        inputs: of the step, whose taps are searched if a number is not finite.
        terms: the value of each term.

    Raises:
        NonFiniteError: naming the tap, or else the term, that holds NaN or infinity.
    """
    if all(math.isfinite(number) for number in numbers):
        return
    for name, tap in _taps(inputs):
        found = _found(tap)
        if found:
            raise NonFiniteError(
                f"{name} holds {found} among {tap.numel()} values. "
                "The detector has diverged, or its input or checkpoint is broken."
            )
    for name, value in terms.items():
        if not torch.isfinite(value):
            raise NonFiniteError(
                f"term {name} is {value.item()}, though every tap is finite: the taps are too large for it "
                f"(greatest magnitude {_greatest(inputs):.3g}). Lower the learning rate, or use another distance."
            )


def _found(map_BCHW: Tensor) -> str:
    num_nan, num_infinite = int(map_BCHW.isnan().sum()), int(map_BCHW.isinf().sum())
    parts = [f"{number} {what}" for number, what in ((num_nan, "NaN"), (num_infinite, "infinite")) if number]
    return " and ".join(parts)


def _greatest(inputs: TermInputs) -> float:
    return max(float(tap.detach().abs().max()) for _, tap in _taps(inputs) if tap.numel())
