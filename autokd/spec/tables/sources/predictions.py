"""Predictions, candidate box by candidate box: class logits, boxes, and distributions of their edges."""

from __future__ import annotations

from autokd.spec.operator import BOXES, LOGITS, Operator, Parameter
from autokd.spec.tables.sources.maps import REGION_WEIGHTS

_MODULE = "autokd.distill.sources.predictions"

ROWS: tuple[Operator, ...] = (
    Operator(
        "class_logits", "source", f"{_MODULE}:ClassLogits", gives=LOGITS, needs_taps=("class_logits",),
        formula="Z", meaning="the class logits of every candidate box, with equal weights",
        paper="Hinton et al., arXiv:1503.02531", channels_are="classes",
    ),
    Operator(
        "positive_logits", "source", f"{_MODULE}:PositiveLogits", gives=LOGITS, needs_taps=("class_logits", "boxes"),
        formula="Z|positive",
        meaning=(
            "the class logits of positive candidates: those whose box, as the teacher decodes it, has IoU >= 0.5 "
            "with an object"
        ),
        paper="LD, arXiv:2102.12252, section 3.3", channels_are="classes",
        parameters=(
            Parameter(
                "by_level", 0, 0, 1,
                "1: the candidates of each level by themselves, their distances added (heads with equally many "
                "candidates in each cell; others have one level)",
                omitted_at_default=True,
            ),
            REGION_WEIGHTS,
            Parameter(
                "calibrated", 0.0, 0.0, 1.0,
                "where the teacher gives the object's class less than this probability (sigmoid), softened ground "
                "truth takes the place of its logits (FerKD, arXiv:2312.17473); 0: nowhere",
                omitted_at_default=True,
            ),
        ),
    ),
    Operator(
        "localization", "source", f"{_MODULE}:Localization", gives=BOXES, needs_taps=("boxes", "class_logits"),
        formula="boxes|top score", meaning="the decoded boxes, weighted by the teacher's top class probability",
        paper="BCKD, arXiv:2308.14286, section 3.3",
    ),
    Operator(
        "localization_distribution", "source", f"{_MODULE}:LocalizationDistribution", gives=LOGITS,
        needs_taps=("edge_logits", "boxes", "class_logits"), formula="E|positive, top score",
        meaning=(
            "the logits of the bins of each box edge of positive candidates, weighted by the teacher's top class "
            "probability"
        ),
        paper="LD, arXiv:2102.12252, eq. 3",
    ),
)  # fmt: skip
