"""Small learned networks on a map."""

from __future__ import annotations

from autokd.spec.operator import Operator, Parameter, effects

_MODULE = "autokd.distill.transforms.learned_blocks"

ROWS: tuple[Operator, ...] = (
    Operator(
        "masked_generation", "transform", f"{_MODULE}:MaskedGeneration",
        formula="conv(ReLU(conv(mask * s)))", meaning="the student's map completed from random cells of it",
        paper="MGD, arXiv:2205.01529, section 3.1", gives_same=True,
        learns=True, is_random=True, zero_at_equality=False,
        parameters=(Parameter("drop", 0.65, 0.05, 0.95, "part of the cells that is left out"),),
    ),
    Operator(
        "global_context", "transform", f"{_MODULE}:GlobalContext",
        formula="x + GC(x)", meaning="every cell with what a learned block says about the whole map, each side its own",
        paper="FGD, arXiv:2111.11837, section 3.2", gives_same=True, learns=True, zero_at_equality=False,
        adds=effects("sample_channel_affine"),
    ),
)  # fmt: skip
