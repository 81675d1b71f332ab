"""Parts of a student by name, for trainings that keep them frozen."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import takewhile

from torch import nn

from autokd.detectors import Detector
from autokd.errors import DetectorError


def parts_of(student: Detector, names: Iterable[str]) -> tuple[nn.Module, ...]:
    """Return the modules of the named parts.

    Args:
        student: the detector.
        names: "backbone", the body under the feature pyramid, without the pyramid; "stem", the part of the body before
            its stages.

    Raises:
        DetectorError: if the body has no known stem.
    """
    parts: list[nn.Module] = []
    for name in names:
        parts += [student.body] if name == "backbone" else student.stem or _stem(student.body, student.architecture)
    return tuple(parts)


def _stem(body: nn.Module, architecture: str) -> list[nn.Module]:
    children = list(body.named_children())
    names = [name for name, _ in children]
    if "layer1" in names:  # a ResNet or a relative, in either framework
        return [child for _, child in takewhile(lambda named: named[0] != "layer1", children)]
    if known := [child for name, child in children if name in ("stem", "patch_embed")]:
        return known
    raise DetectorError(
        f"proxy.frozen: the backbone of {architecture} is a {type(body).__name__} of {', '.join(names)}, none of which "
        "is known to be its stem. Freeze 'backbone' instead, or leave 'stem' out."
    )
