"""Functions of each number by itself.

Legend: S samples (images, regions or patches), C channels, H x W cells.
"""

from __future__ import annotations

from torch import Tensor

from autokd.distill.feature_pair import FeaturePair
from autokd.distill.operators import BuildContext, Transform
from autokd.distill.term_inputs import TermInputs
from autokd.spec.operator import BINARY

_LEAST_ROOT = 1e-6
"""Below this, a root continues as a straight line to 0: the slope of a root is infinite there."""


class Power(Transform):
    """sign(x) |x|^exponent. Layout stays. Auto-KD, ICCV 2023 (global transformations)."""

    def __init__(self, context: BuildContext, exponent: int) -> None:
        super().__init__(context)
        self.exponent = exponent

    def change(self, x_SCHW: Tensor, features: FeaturePair) -> Tensor:
        return x_SCHW * x_SCHW.abs() ** (self.exponent - 1)


class Root(Transform):
    """sign(x) |x|^(1 / degree), for |x| below 1e-6 the straight line from there through 0.

    Layout stays. Auto-KD, ICCV 2023 (global transformations).
    """

    def __init__(self, context: BuildContext, degree: int) -> None:
        super().__init__(context)
        self.degree = degree

    def change(self, x_SCHW: Tensor, features: FeaturePair) -> Tensor:
        size = x_SCHW.abs().clamp_min(_LEAST_ROOT)
        return x_SCHW * size ** (1 / self.degree - 1)


class Log(Transform):
    """sign(x) log(1 + |x|). Layout stays. Auto-KD, ICCV 2023 (global transformations)."""

    def change(self, x_SCHW: Tensor, features: FeaturePair) -> Tensor:
        return x_SCHW.sign() * x_SCHW.abs().log1p()


class Sigmoid(Transform):
    """Each number as the log-odds of a yes-or-no question of its own, with probability sigmoid(x / temperature).

    Layout map or logits -> binary (log-odds). Binary distillation of class logits: BCKD, arXiv:2308.14286, section 3.
    """

    def __init__(self, context: BuildContext, temperature: float) -> None:
        super().__init__(context)
        self.temperature = temperature

    def forward(self, features: FeaturePair, inputs: TermInputs) -> FeaturePair:
        student_SCHW, teacher_SCHW = features.student_SCHW, features.teacher_SCHW
        return features.with_maps(
            student_SCHW / self.temperature,
            teacher_SCHW / self.temperature,
            layout=BINARY,
            temperature=self.temperature,
        )
