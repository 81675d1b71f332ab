"""Families of detectors: published distillers have other weights, or other terms, for each.

A pair belongs to the family of its student, since the gradient reaches the student's pyramid alone. Releases with a
pair of two families are rare: PKD takes the student's weight (10) for FCOS -> RetinaNet, and the teacher's (6) for
Mask R-CNN -> RetinaNet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from autokd.errors import SpecError, one_of

DetectorFamily = Literal["one_stage", "anchor_based", "anchor_free", "two_stage"]
DETECTOR_FAMILIES: tuple[DetectorFamily, ...] = ("one_stage", "anchor_based", "anchor_free", "two_stage")
"""``anchor_based`` and ``anchor_free`` are parts of ``one_stage``: a distiller has terms for the parts, or for both."""
ANY_FAMILY = "any"
"""Label of a distiller that was published with the same terms and weights for all detectors."""
_PARTS = ("anchor_based", "anchor_free")


def chosen_family(offered: Sequence[str], family: str | None) -> str:
    """Return which of the families of a distiller serves a detector.

    Args:
        offered: families for which the distiller has terms, in the order of its file; at least one.
        family: family of the detector; None: unknown.

    Returns:
        The family itself if it is offered; else, unless it is ``two_stage``, ``one_stage`` or the first part of it that
        is offered; else the first family.

    Raises:
        SpecError: if there is no such family of detectors.
    """
    if family is not None and family not in DETECTOR_FAMILIES:
        raise SpecError(one_of(family, DETECTOR_FAMILIES, noun="family of detectors"))
    if family in offered:
        return str(family)
    one_stage = [name for name in offered if name == "one_stage"] + [name for name in offered if name in _PARTS]
    return (one_stage or offered)[0] if family != "two_stage" else offered[0]


def serves(offered: str, family: str | None) -> bool:
    """Return whether weights of one family were published for a detector of another.

    Args:
        offered: family of the weights, or "any"; empty: the distiller says nothing of families.
        family: family of the detector; None: unknown.
    """
    if offered in ("", ANY_FAMILY):
        return True
    return offered == family or (offered == "one_stage" and family in _PARTS)


__all__ = ["ANY_FAMILY", "DETECTOR_FAMILIES", "DetectorFamily", "chosen_family", "serves"]
