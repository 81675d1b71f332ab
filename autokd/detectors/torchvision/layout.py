"""Which levels a detector has and which objects each level looks for: numbers only, no torch.

Two families. *Large* images get the levels of the papers (p3-p7 for dense heads, p2-p6 for two stages) with
their anchors. *Small* ones (longest side up to 320 px) stop at p5, since p6 and p7 would be maps of one or two
cells, and the anchors of two-stage detectors and RetinaNet shrink.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from autokd.config import BUILDERS

Family = Literal["fcos", "retinanet", "faster_rcnn"]
LARGEST_SMALL_SIDE_PX = 320
_FAMILIES: dict[str, Family] = {"fcos": "fcos", "retinanet": "retinanet", "fasterrcnn": "faster_rcnn"}
"""First word of a builder's name -> the family of its detector."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Levels, anchors and budgets of one detector; sizes in pixels of the network's input."""

    levels: tuple[str, ...]
    """Names of the pyramid's levels, fine to coarse."""
    stages: tuple[int, ...]
    """Stages of the ResNet (1-4) that feed the pyramid."""
    top: Literal["none", "p6p7", "pool"]
    """Levels above p5: none, two by strided convolutions, or one by subsampling p5."""
    anchor_sizes_px: tuple[tuple[int, ...], ...]
    """Sides of the square anchors of each level, before the aspect ratios."""
    aspect_ratios: tuple[float, ...]
    """Height over width of the anchors, on every level."""
    canonical_scale_px: int = 224
    """Two stages: a region of this side is pooled from p4."""
    num_proposals: int = 1000
    """Two stages: proposals of an image before and after suppression, in training and detection alike."""
    samples_per_bin: int = 2
    """Two stages: bilinear samples per side of each of the 7 x 7 cells of a region."""
    num_sampled_proposals: int = 512
    """Two stages: proposals of an image that the box head is trained on."""

    @property
    def strides(self) -> dict[str, int]:
        """Level name -> pixels of the network's input per cell."""
        return {level: 2 ** int(level[1]) for level in self.levels}

    @property
    def pad_multiple_px(self) -> int:
        """Both sides of the padded input are multiples of this: cells and anchors then coincide on every level."""
        return max(self.strides.values())

    @property
    def num_anchors_per_cell(self) -> int:
        """Anchors of one cell, the same on every level."""
        return len(self.anchor_sizes_px[0]) * len(self.aspect_ratios)


def family_of(architecture: str) -> Family:
    """Return the family of a detector of AutoKD or of a builder of torchvision.

    Args:
        architecture: value of the key ``architecture``.
    """
    return "faster_rcnn" if architecture == "faster_rcnn" else _FAMILIES[architecture.split("_")[0]]


def choose_layout(architecture: str, image_size_px: tuple[int, int]) -> Layout:
    """Return the layout for a size of images; torchvision's builders have one for all sizes.

    Args:
        architecture: value of the key ``architecture``.
        image_size_px: (height, width) of the network's input.
    """
    small = max(image_size_px) <= LARGEST_SMALL_SIDE_PX and architecture not in BUILDERS
    if "mobilenet" in architecture:
        return _MOBILENET
    if family_of(architecture) == "faster_rcnn":
        return _two_stage(small)
    levels = ("p3", "p4", "p5") if small else ("p3", "p4", "p5", "p6", "p7")
    strides = [2 ** int(level[1:]) for level in levels]
    sizes: tuple[tuple[int, ...], ...]
    ratios: tuple[float, ...]
    if family_of(architecture) == "fcos":
        # FCOS, arXiv:1904.01355, section 3.2: p3 takes boxes whose farthest side is up to 64 px. Ranges shrunk to
        # spread the objects of small images over more levels trained worse (half: -.01 AP, a quarter: -.06).
        sizes, ratios = tuple((stride,) for stride in strides), (1.0,)
    else:
        # RetinaNet, arXiv:1708.02002, section 4: three octave fractions and three ratios a cell. Measured on
        # 120 x 160 photographs: 2, 3 and 4 strides are alike, 1.5 and 1 lose .07 and .15 AP (p3 then gets too little).
        base = 3 if small else 4
        sizes = tuple(tuple(int(base * stride * 2 ** (third / 3)) for third in range(3)) for stride in strides)
        ratios = (0.5, 1.0, 2.0)
    return Layout(
        levels=levels,
        stages=(2, 3, 4),
        top="none" if small else "p6p7",
        anchor_sizes_px=sizes,
        aspect_ratios=ratios,
    )


def _two_stage(small: bool) -> Layout:
    """FPN, arXiv:1612.03144, section 4: one anchor size a level, three ratios."""
    if small:
        return Layout(
            levels=("p2", "p3", "p4", "p5"),
            stages=(1, 2, 3, 4),
            top="none",
            anchor_sizes_px=((12,), (24,), (48,), (96,)),
            aspect_ratios=(0.5, 1.0, 2.0),
            canonical_scale_px=56,
            num_proposals=200,
            samples_per_bin=1,
            num_sampled_proposals=64,
        )
    return Layout(
        levels=("p2", "p3", "p4", "p5", "p6"),
        stages=(1, 2, 3, 4),
        top="pool",
        anchor_sizes_px=((32,), (64,), (128,), (256,), (512,)),
        aspect_ratios=(0.5, 1.0, 2.0),
    )


_MOBILENET = Layout(
    levels=("p5", "p5_top", "p6"),
    stages=(3, 4),
    top="pool",
    anchor_sizes_px=((32, 64, 128, 256, 512),) * 3,
    aspect_ratios=(0.5, 1.0, 2.0),
)
"""torchvision's builders over MobileNetV3: two maps of stride 32, before and after the last stage, and a pooled one."""
