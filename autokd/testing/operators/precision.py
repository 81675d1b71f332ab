"""Checks of half precision: terms on float16 and bfloat16 taps under autocast against the same numbers in float64.

A distiller widens taps to float32 and computes outside autocast, so a value has float32's rounding, and only the
gradient is rounded once more, to the tap's format, where it enters the tap.
"""

from __future__ import annotations

import copy
import math
import unittest
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from autokd.detector_outputs import DetectorOutputs
from autokd.distill import Distiller, build_distiller
from autokd.spec import Weight
from autokd.spec.operator import Operator
from autokd.tensors import full_precision
from autokd.testing.operators import samples
from autokd.testing.operators.forms import Form, forms_with, spec_of_all
from autokd.testing.operators.probes import expect
from autokd.testing.operators.samples import OF_ALL_CLASSES

_PREDICTIONS = ("class_logits", "boxes", "edge_logits", "layer_edge_logits", "shared_logits", "shared_boxes")
FORMATS = (torch.float16, torch.bfloat16)
CASES = ((torch.float16, 0.01), (torch.float16, 300.0), (torch.bfloat16, 1.0), (torch.bfloat16, 1000.0))
"""Formats with deviations of the maps: a fresh adapter's, a normalized layer's, and those of an unbounded pyramid.
float16 is tried at both ends of its short range, bfloat16 where its precision shows."""
_VALUE_ROUNDING = 1e-4, 1e-5
"""Relative and absolute: sums over a map of float32 numbers; divergences of log-probabilities, which are about
1, times a squared temperature."""
_UNITS = 4
"""Rounding units of the format that a gradient may be off by: one for the tap, the rest for values at a kink (|x| at
0, a maximum of equals), where float32 and float64 may take different sides."""
_FLOAT32_ROUNDING = 1e-5
"""Part of value / magnitude below which a gradient is float32's rounding alone, as of a saturated softmax."""


def keeps_within_rounding(row: Operator, device: str) -> None:
    """Terms with the operator on half-precision taps under autocast are those of float64, up to rounding.

    A gradient may overflow only if float64's leaves the format's range, which a loss scaler answers. The backward is
    called outside autocast, as torch's documentation asks for.

    Args:
        row: the operator.
        device: "cpu" or "cuda".

    Raises:
        unittest.SkipTest: if there is no such device; pytest and unittest report the check as skipped.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise unittest.SkipTest("this machine has no GPU")
    for form in forms_with(row):
        exact = _built(form)
        distiller = copy.deepcopy(exact).to(device)
        exact.double()
        for dtype, magnitude in CASES:
            taps = [_scaled(samples.outputs(8, seed=seed), magnitude, dtype) for seed in (2, 3)]
            student, teacher = (_leaves(side, lambda x: x.to(device)) for side in taps)
            found = _value_and_gradients(distiller, student, teacher, under=torch.autocast(device, dtype=dtype))
            student, teacher = (_leaves(side, partial(_as, torch.float64)) for side in taps)
            wide = _value_and_gradients(exact, student, teacher)
            _compare(row, found, wide, (form, dtype, magnitude))


def computes_without_float64(row: Operator) -> None:
    """No tensor of a step is float64, which most cards compute 32 to 64 times as slowly as float32."""
    forms = forms_with(row)
    if _float64_of(_built(*forms)):
        for form in forms:  # which?
            found = _float64_of(_built(form))
            expect(not found, row, f"it computes in float64: {', '.join(sorted(found))}", form)
        raise AssertionError(f"{row.name!r}: a sum of terms computes in float64, and none of them alone")


def _float64_of(distiller: Distiller) -> set[str]:
    """The operations of a step that give float64, on taps of each format."""
    distiller.train()
    with Float64Watch() as watch:
        for dtype in (torch.float32, *FORMATS):
            student, teacher = (_leaves(samples.outputs(8, seed=seed), partial(_as, dtype)) for seed in (2, 3))
            _value_and_gradients(distiller, student, teacher)
    return watch.found


class Float64Watch(TorchDispatchMode):
    """Records the operations that give a float64 tensor, forward and backward."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and note its name if a result is float64."""
        result = func(*args, **(kwargs or {}))
        results = result if isinstance(result, (tuple, list)) else (result,)
        if any(isinstance(part, Tensor) and part.dtype == torch.float64 for part in results):
            self.found.add(str(func))
        return result


def _built(*forms: Form) -> Distiller:
    spec = spec_of_all(forms, Weight("absolute", 1.0))
    return build_distiller(spec, samples.outputs(8), samples.outputs(8, seed=1), samples.NUM_CLASSES).eval()


def _compare(
    row: Operator, half: tuple[float, Tensor], wide: tuple[float, Tensor], where: tuple[Form, torch.dtype, float]
) -> None:
    (value, found), (want, exact), (_, dtype, magnitude) = half, wide, where
    rtol, atol = _VALUE_ROUNDING
    holds = abs(value - want) <= rtol * abs(want) + atol
    expect(holds, row, f"a term is {value} on half-precision taps and {want} in float64", *where)
    limits = torch.finfo(dtype)
    # Half a unit of the greatest number rounds up to infinity.
    fits = exact.abs() < limits.max * (1 - limits.eps)
    if not fits.all():
        return  # a gradient beyond the format is infinite in part or in whole: a loss scaler lowers its scale
    expect(found.isfinite().all(), row, "its gradient overflows where float64's is in range", *where)
    error, size = (found - exact).norm(), exact.norm()
    least = math.sqrt(len(exact)) * (limits.smallest_normal * limits.eps)
    rounding = _FLOAT32_ROUNDING * max(1.0, abs(want)) / magnitude
    holds = error <= _UNITS * limits.eps * size + least + rounding
    expect(holds, row, f"its gradient is off by {error:.2g} of {size:.2g} on half-precision taps", *where)


def _value_and_gradients(
    distiller: Distiller,
    student: DetectorOutputs,
    teacher: DetectorOutputs,
    under: AbstractContextManager[object] | None = None,
) -> tuple[float, Tensor]:
    """The loss, computed under a context, and its gradient on every tap as one vector on the CPU."""
    with under or nullcontext():
        total = distiller(student, teacher, OF_ALL_CLASSES).total
    leaves = _taps(student)
    gradients = torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True)
    return float(total.detach()), torch.cat([full_precision(gradient.cpu()).flatten() for gradient in gradients])


def _taps(outputs: DetectorOutputs) -> list[Tensor]:
    taps = [*outputs.pyramid.values(), *(getattr(outputs, name) for name in _PREDICTIONS)]
    return [tap for tap in taps if tap is not None]


def _as(dtype: torch.dtype, x: Tensor) -> Tensor:
    return x.to(dtype)


def _leaves(outputs: DetectorOutputs, change: Callable[[Tensor], Tensor]) -> DetectorOutputs:
    """Every tap changed, and a leaf of its own."""

    def leaf(x: Tensor) -> Tensor:
        return change(x.detach().clone()).requires_grad_()

    def maybe(x: Tensor | None) -> Tensor | None:
        return None if x is None else leaf(x)

    predictions: dict[str, Any] = {name: maybe(getattr(outputs, name)) for name in _PREDICTIONS}
    maps = {name: (leaf(c), leaf(b)) for name, (c, b) in (outputs.head_maps or {}).items()}
    proposals = outputs.proposals
    return replace(
        outputs,
        pyramid={name: leaf(x) for name, x in outputs.pyramid.items()},
        **predictions,
        proposals=None if proposals is None else change(proposals.detach()),
        head_maps=maps or None,
        losses=None,
    )


def _scaled(outputs: DetectorOutputs, magnitude: float, dtype: torch.dtype) -> DetectorOutputs:
    """Maps and logits times ``magnitude``, all taps in ``dtype``.

    Boxes stay, which are pixels, and so do maps inside the head: the exponential of its decoder is not the distiller's.
    """
    leaves = _leaves(outputs, lambda x: x)
    logits: dict[str, Any] = {
        name: getattr(leaves, name) * magnitude for name in _PREDICTIONS if name.endswith("logits")
    }
    larger = replace(leaves, pyramid={name: x * magnitude for name, x in leaves.pyramid.items()}, **logits)
    return _leaves(larger, partial(_as, dtype))


CHECKS: tuple[tuple[str, Callable[[Operator], None]], ...] = (
    ("keeps_within_rounding_on_cpu", partial(keeps_within_rounding, device="cpu")),
    ("keeps_within_rounding_on_cuda", partial(keeps_within_rounding, device="cuda")),
    ("computes_without_float64", computes_without_float64),
)
