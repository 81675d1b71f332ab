"""Predictions of heads on queries: matched one to one, or of one set of queries given to both decoders."""

from __future__ import annotations

from autokd.spec.operator import BOXES, LOGITS, Operator

_MODULE = "autokd.distill.sources.queries"
_PREDICTIONS = ("class_logits", "boxes")
_MATCHED = "the teacher's predictions, each beside the student's that a Hungarian matching gives it, weighted by the "
_SHARED = "the predictions of both decoders for one set of reference boxes, weighted by the teacher's top probability"

ROWS: tuple[Operator, ...] = (
    Operator(
        "matched_logits", "source", f"{_MODULE}:MatchedLogits", gives=LOGITS,
        needs_of_student=_PREDICTIONS, needs_of_teacher=_PREDICTIONS, formula="Z|matched, top score",
        meaning=f"class logits of {_MATCHED}teacher's top class probability",
        paper="DETRDistill, arXiv:2211.10156, section 3.1", channels_are="classes",
    ),
    Operator(
        "matched_boxes", "source", f"{_MODULE}:MatchedBoxes", gives=BOXES,
        needs_of_student=_PREDICTIONS, needs_of_teacher=_PREDICTIONS, formula="boxes|matched, top score",
        meaning=f"decoded boxes of {_MATCHED}teacher's top class probability",
        paper="DETRDistill, arXiv:2211.10156, section 3.1",
    ),
    Operator(
        "matched_edges", "source", f"{_MODULE}:MatchedEdges", gives=LOGITS,
        needs_of_student=(*_PREDICTIONS, "layer_edge_logits"), needs_of_teacher=(*_PREDICTIONS, "edge_logits"),
        formula="E_l|matched, top score",
        meaning=(
            "the logits of the bins of each box edge after every decoder layer of the student, beside those after the "
            "teacher's last layer, of matched predictions, weighted by the teacher's top class probability"
        ),
        paper="D-FINE, arXiv:2410.13842, section 4.2",
        zero_at_equality=False,  # earlier layers differ from the last one of the same detector
    ),
    Operator(
        "shared_logits", "source", f"{_MODULE}:SharedLogits", gives=LOGITS, needs_taps=("shared_logits",),
        formula="Z|shared queries", meaning=f"class logits: {_SHARED}",
        paper="KD-DETR, arXiv:2211.08071, section 3.3", channels_are="classes",
    ),
    Operator(
        "shared_boxes", "source", f"{_MODULE}:SharedBoxes", gives=BOXES,
        needs_taps=("shared_logits", "shared_boxes"),
        formula="boxes|shared queries", meaning=f"decoded boxes: {_SHARED}",
        paper="KD-DETR, arXiv:2211.08071, section 3.3",
    ),
)  # fmt: skip
