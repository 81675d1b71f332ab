"""The published parts of a distiller: each preset with its family of parts and its calibrated gradient ratio.

The ratios are those at which a preset did best among six, tried by proxies on photographs (``experiments/bccd``),
where that lay inside the range; those at its upper end (fgd, pkd) and presets that did best at their published weights
take a ratio like that of the others of their family. A space multiplies each by its strengths, so that an anchor has to
be right within a factor of ten. ``experiments/pairs`` records strengths around them.
"""

from __future__ import annotations

from typing import NamedTuple


class PartRow(NamedTuple):
    """A preset as a part.

    Args:
        preset: name of the preset.
        gradient_ratio: gradient ratio at strength 1, shared by its terms.
    """

    preset: str
    gradient_ratio: float


PART_FAMILIES: dict[str, tuple[PartRow, ...]] = {
    "maps": (
        PartRow("fitnet", 300),
        PartRow("pkd", 300),
        PartRow("mgd", 300),
        PartRow("feature_kd", 300),
        PartRow("lightly", 300),
    ),
    "channels": (PartRow("cwd", 300), PartRow("dist", 3)),
    "semantic_guided": (PartRow("g_detkd_sgfi", 300),),
    "regions": (PartRow("fgd", 3000), PartRow("score_weighted", 300), PartRow("fbkd", 30), PartRow("detkds", 30)),
    "prototypes": (PartRow("global_knowledge", 3000), PartRow("global_knowledge_labels", 3000)),
    "contrast": (PartRow("g_detkd_contrastive", 3),),
    "crossed_heads": (PartRow("crosskd", 300), PartRow("bckd", 300)),
    "logits": (PartRow("kd", 3), PartRow("dkd", 3), PartRow("logit_standardization", 3)),
    "localization": (PartRow("ld", 300), PartRow("d_fine_localization", 30)),
    "queries": (PartRow("kd_detr", 30),),
    "relations": (PartRow("at", 3), PartRow("gram", 3), PartRow("sp", 3), PartRow("rkd", 3), PartRow("mlkd", 3)),
}
"""Family -> its presets. ``g_detkd`` is no row: it is the sum of two of them."""


def row_of(preset: str) -> tuple[str, PartRow] | None:
    """Return the family and the row of a preset; None if it is no part.

    Args:
        preset: name of the preset.
    """
    for family, rows in PART_FAMILIES.items():
        for row in rows:
            if row.preset == preset:
                return family, row
    return None
