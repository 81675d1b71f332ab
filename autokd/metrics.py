"""Names of the metrics that reports and outcomes hold.

A metric of one part of a whole is written "WHOLE/PART": "test_ap/cat" is the AP of one class, "val_loss/cls" one part
of the detector's loss. Class names may hold slashes themselves, so only the first one separates.
"""

from __future__ import annotations

from typing import Literal, get_args

Split = Literal["val", "test"]
Size = Literal["small", "medium", "large"]
SIZES: tuple[Size, ...] = get_args(Size)
"""COCO's sizes of objects by area in pixels of the original image: up to 32^2, up to 96^2, and above."""

VAL_AP = "val_ap"
TEST_AP = "test_ap"
VAL_LOSS = "val_loss"
CKA = "cka"
TRAIN_SECONDS = "train_seconds"
GRADIENT_SHARE = "gradient_share"
"""A term's share of the gradient: "gradient_share/TERM"."""
BEST_EPOCH = "best_epoch"
"""Epoch of the student that was kept, from 1; of full trainings with ``patience``."""


def ap(split: Split) -> str:
    """Return the name of COCO AP on a split: "val_ap" or "test_ap".

    Args:
        split: part of the data set.
    """
    return f"{split}_ap"


def ap_50(split: Split) -> str:
    """Return the name of AP at IoU 0.5 on a split.

    Args:
        split: part of the data set.
    """
    return f"{split}_ap_50"


def size_ap(split: Split, size: Size) -> str:
    """Return the name of AP of the objects of one size on a split, for example "test_ap_small".

    Args:
        split: part of the data set.
        size: "small", "medium" or "large", as COCO divides objects by their area.
    """
    return f"{split}_ap_{size}"


def class_ap(split: Split, class_name: str) -> str:
    """Return the name of one class's AP on a split, for example "test_ap/cat".

    Args:
        split: part of the data set.
        class_name: name of the class as in the data set.
    """
    return f"{split}_ap/{class_name}"


def loss_part(name: str) -> str:
    """Return the name of one part of the validation loss, for example "val_loss/cls".

    Args:
        name: part of the detector's loss.
    """
    return f"{VAL_LOSS}/{name}"


def part_of(metric: str, whole: str) -> str | None:
    """Return the part that ``metric`` is of ``whole``, or None if it is none of its parts.

    Args:
        metric: name of a metric, for example "test_ap/cat".
        whole: name of the metric of the whole, for example "test_ap".

    Returns:
        "cat" for the examples above.
    """
    found, slash, part = metric.partition("/")
    return part if slash and found == whole else None


def is_part(metric: str) -> bool:
    """Return whether ``metric`` is of one part of a whole.

    Args:
        metric: name of a metric.
    """
    return "/" in metric
