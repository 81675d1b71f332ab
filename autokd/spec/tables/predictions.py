"""Class logits, boxes and edges: their sources and distances."""

from __future__ import annotations

from autokd.spec.operator import BINARY, BOXES, LOGITS, Operator, Parameter, effects

_SOURCES = "autokd.distill.sources.predictions"
_CROSSED = "autokd.distill.sources.cross_head"
_DISTANCES = "autokd.distill.distances.predictions"

ROWS = (
    Operator(
        "class_logits", "source", f"{_SOURCES}:ClassLogits", gives=LOGITS, needs_taps=("class_logits",),
        formula="Z", meaning="the class logits of every candidate box, equally",
        paper="Hinton et al., arXiv:1503.02531",
    ),
    Operator(
        "positive_logits", "source", f"{_SOURCES}:PositiveLogits", gives=LOGITS, needs_taps=("class_logits", "boxes"),
        formula="Z|positive",
        meaning="the class logits of candidates whose box, by the teacher, has IoU >= 0.5 to an object",
        paper="LD, arXiv:2102.12252, section 3.3",
    ),
    Operator(
        "localisation", "source", f"{_SOURCES}:Localisation", gives=BOXES, needs_taps=("boxes", "class_logits"),
        formula="boxes|top score", meaning="the decoded boxes, weighted by the teacher's top class probability",
        paper="BCKD, arXiv:2308.14286, section 3.3",
    ),
    Operator(
        "edges", "source", f"{_SOURCES}:Edges", gives=LOGITS, needs_taps=("edge_logits", "boxes", "class_logits"),
        formula="E|positive, top score",
        meaning="the bins of each edge of positive candidates, weighted by the teacher's top class probability",
        paper="LD, arXiv:2102.12252, eq. 3",
    ),
    Operator(
        "crossed_logits", "source", f"{_CROSSED}:CrossedLogits", gives=LOGITS, learns=True, zero_at_equality=False,
        needs_of_student=("head_maps",), needs_of_teacher=("head", "class_logits"),
        formula="Z by the teacher's head",
        meaning="class logits that the teacher's frozen head gives to the student's standardised head maps",
        paper="CrossKD, arXiv:2306.11369, section 3.2",
    ),
    Operator(
        "crossed_boxes", "source", f"{_CROSSED}:CrossedBoxes", gives=BOXES, learns=True, zero_at_equality=False,
        needs_of_student=("head_maps",), needs_of_teacher=("head", "class_logits", "boxes"),
        formula="boxes by the teacher's head|top score",
        meaning="boxes that the teacher's frozen head decodes from the student's standardised head maps",
        paper="CrossKD, arXiv:2306.11369, section 3.2",
    ),
    Operator(
        "binary_cross_entropy", "distance", f"{_DISTANCES}:BinaryCrossEntropy", takes=(BINARY,),
        formula="tau^2 sum |p_s - p_t|^{focus} CE(p_t, p_s) / sum max_c p_t",
        meaning="cross entropy of each yes or no, weighted by the detached disagreement, per yes of the teacher",
        paper="BCKD, arXiv:2308.14286, eqs. 5-6", keeps=effects("grouping"),
        parameters=(Parameter("focus", 1.0, 0.5, 4.0, "power of the disagreement in the weight"),),
    ),
    Operator(
        "binary_kl", "distance", f"{_DISTANCES}:BinaryKL", takes=(BINARY,),
        formula="tau^2 mean sum_c KL(p_t || p_s)", meaning="divergence of each yes or no, summed over the channels",
        paper="MLKD, arXiv:2308.06453, eq. 3", keeps=effects("grouping"),
    ),
    Operator(
        "decoupled_kl", "distance", f"{_DISTANCES}:DecoupledKL", takes=(LOGITS,),
        formula="{temperature}^2 mean {alpha} KL(target, rest) + {beta} KL(among the rest)",
        meaning="divergence of the target class against the rest, and among the rest, weighted apart",
        paper="DKD, arXiv:2203.08679, eq. 7",
        parameters=(
            Parameter("alpha", 1.0, 0.0, 100.0, "weight of the target class against the rest"),
            Parameter("beta", 8.0, 0.01, 100.0, "weight of the classes among the rest"),
            Parameter("temperature", 4.0, 0.01, 100.0, "divides the logits"),
        ),
    ),
    Operator(
        "iou", "distance", f"{_DISTANCES}:IoU", takes=(BOXES,),
        formula="mean 1 - IoU(s, t)", meaning="one minus intersection over union",
        paper="BCKD, arXiv:2308.14286, section 3.3",
    ),
    Operator(
        "giou", "distance", f"{_DISTANCES}:GIoU", takes=(BOXES,),
        formula="mean 1 - GIoU(s, t)",
        meaning="one minus IoU, plus the share of the box around both that neither covers",
        paper="Generalized IoU, arXiv:1902.09630",
    ),
)  # fmt: skip
