"""A learned memory of the teacher's vectors."""

from __future__ import annotations

from autokd.spec.operator import Operator, Parameter

_MODULE = "autokd.distill.transforms.memory"

ROWS: tuple[Operator, ...] = (
    Operator(
        "memory_recall", "transform", f"{_MODULE}:MemoryRecall",
        formula="sum_m w_m k_m, w = softmax_m(-||s - k_m||^2 / ({temperature} C var))",
        meaning=(
            "the student's cells as mixtures of learned vectors, which begin as means of the teacher's "
            "vectors of the first batch"
        ),
        paper="after MemKD (Remembering Normality), ICCV 2023", gives_same=True, learns=True,
        zero_at_equality=False,
        parameters=(
            Parameter("exemplars", 64, 2, 1024, "learned vectors of each level"),
            Parameter(
                "temperature", 0.5, 0.01, 100.0,
                "weight of the shares' entropy, in variances of the teacher's vectors; smaller recalls fewer",
            ),
        ),
    ),
)  # fmt: skip
