"""The bare torchvision models whose parts the adapters drive; nothing of AutoKD is inside them.

Labels of a bare FCOS or RetinaNet count from 0; a bare FasterRCNN keeps 0 for the background and counts
from 1. The bare models resize what they are given into ``image_size_px``, the adapters never resize.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import nn
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.fcos import FCOSClassificationHead, FCOSHead, FCOSRegressionHead
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import Conv2dNormActivation, MultiScaleRoIAlign

from autokd.config import TorchvisionDetector
from autokd.detectors.torchvision import builders
from autokd.detectors.torchvision.backbone import build_backbone
from autokd.detectors.torchvision.builders import SCORE_THRESHOLD
from autokd.detectors.torchvision.initial_weights import num_head_rows
from autokd.detectors.torchvision.layout import Layout, choose_layout
from autokd.detectors.torchvision.norms import num_groups
from autokd.detectors.torchvision.pretrained import entry_of, entry_of_file, pixel_statistics

USUAL_PIXEL_STATISTICS = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
"""Mean and standard deviation with which torchvision's detectors normalize colors if nothing else is said."""


def plain_torchvision_model(
    config: TorchvisionDetector,
    num_classes: int,
    image_size_px: tuple[int, int],
    classes: Sequence[str] | None = None,
) -> nn.Module:
    """Return the bare torchvision module of a configuration, randomly initialized.

    ``student.pt`` loads in it, strictly. ``autokd.detectors.plain_torchvision_source`` gives the same model as a
    short script that imports torchvision alone.

    Args:
        config: the section of the detector.
        num_classes: object classes, without a background.
        image_size_px: (height, width) of the network's input.
        classes: the data set's names, which are needed if the section names weights of other classes for a two-stage
            head: such a head keeps all of them.

    Raises:
        DetectorError: if such weights cannot be read, or their classes not be matched.
    """
    return new_model(config, num_head_rows(config, num_classes, classes), image_size_px)


def new_model(config: TorchvisionDetector, num_rows: int, image_size_px: tuple[int, int]) -> nn.Module:
    """Return the bare module whose head has ``num_rows`` classes; the background is one of them for two stages."""
    layout = choose_layout(config.architecture, image_size_px)
    transform = transform_settings(config, layout, image_size_px)
    if config.is_builders:
        return builders.build(config, num_rows, transform)
    return _BUILDERS[config.architecture](config, num_rows, layout, transform)


def transform_settings(config: TorchvisionDetector, layout: Layout, image_size_px: tuple[int, int]) -> dict[str, Any]:
    """Return the sizes of images, and the colors that pretrained weights ask for if they are not torchvision's usual.

    Args:
        config: the section of the detector.
        layout: its levels.
        image_size_px: (height, width) of the network's input.
    """
    settings: dict[str, Any] = {
        "min_size": min(image_size_px),
        "max_size": max(image_size_px),
        "size_divisible": layout.pad_multiple_px,
    }
    statistics = _pixel_statistics(config)
    if statistics is not None:
        settings |= dict(zip(("image_mean", "image_std"), statistics))
    return settings


def _pixel_statistics(config: TorchvisionDetector) -> tuple[list[float], list[float]] | None:
    """Return mean and deviation of the colors for the backbone's weights; None: torchvision's usual ones."""
    backbone = config.backbone
    if backbone.weights is None or backbone.name is None:
        return None
    file = backbone.weights_file
    # A file of unknown name was trained as the backbone's own weights are, as far as anyone can say.
    entry = entry_of(backbone.name, backbone.weights) if file is None else entry_of_file(backbone.name, file)
    statistics = pixel_statistics(entry or entry_of(backbone.name, "DEFAULT"))
    return None if statistics == USUAL_PIXEL_STATISTICS else statistics


def _anchors(layout: Layout) -> AnchorGenerator:
    return AnchorGenerator(layout.anchor_sizes_px, (layout.aspect_ratios,) * len(layout.levels))


def _fcos(config: TorchvisionDetector, num_classes: int, layout: Layout, transform: dict[str, Any]) -> FCOS:
    channels, convs = config.fpn_channels, config.head_convs
    norm = partial(nn.GroupNorm, num_groups(channels))
    head = FCOSHead(channels, 1, num_classes, num_convs=0)
    head.classification_head = FCOSClassificationHead(channels, 1, num_classes, convs, norm_layer=norm)
    head.regression_head = FCOSRegressionHead(channels, 1, convs, norm_layer=norm)
    # A ReLU ends the branch: from 0, the first steps may take a side of all boxes below it, where there is no gradient.
    nn.init.constant_(head.regression_head.bbox_reg.bias, config.box_init)
    return FCOS(
        build_backbone(config, layout),
        num_classes,
        anchor_generator=_anchors(layout),
        head=head,
        score_thresh=SCORE_THRESHOLD,
        **transform,
    )


def _retinanet(config: TorchvisionDetector, num_classes: int, layout: Layout, transform: dict[str, Any]) -> RetinaNet:
    channels = config.fpn_channels
    norm = partial(nn.GroupNorm, num_groups(channels))
    head = RetinaNetHead(channels, layout.num_anchors_per_cell, num_classes, norm_layer=norm)
    for branch in (head.classification_head, head.regression_head):
        branch.conv = _tower(channels, config.head_convs, norm)  # torchvision fixes four convolutions
    return RetinaNet(
        build_backbone(config, layout),
        num_classes,
        anchor_generator=_anchors(layout),
        head=head,
        score_thresh=SCORE_THRESHOLD,
        detections_per_img=100,
        **transform,
    )


def _tower(channels: int, num_convs: int, norm: Callable[..., nn.Module]) -> nn.Sequential:
    tower = nn.Sequential(*(Conv2dNormActivation(channels, channels, norm_layer=norm) for _ in range(num_convs)))
    for module in tower.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.01)
    return tower


def _faster_rcnn(config: TorchvisionDetector, num_rows: int, layout: Layout, transform: dict[str, Any]) -> FasterRCNN:
    channels = config.fpn_channels
    pooled_levels = [f"p{stage + 1}" for stage in layout.stages]
    hidden = 4 * channels  # 1024 in the paper's detector of 256 channels
    return FasterRCNN(
        build_backbone(config, layout),
        rpn_anchor_generator=_anchors(layout),
        rpn_head=RPNHead(channels, layout.num_anchors_per_cell, conv_depth=config.head_convs),
        rpn_pre_nms_top_n_train=layout.num_proposals,
        rpn_pre_nms_top_n_test=layout.num_proposals,
        rpn_post_nms_top_n_train=layout.num_proposals,
        rpn_post_nms_top_n_test=layout.num_proposals,
        box_roi_pool=MultiScaleRoIAlign(
            pooled_levels, 7, layout.samples_per_bin, canonical_scale=layout.canonical_scale_px
        ),
        box_head=TwoMLPHead(channels * 7 * 7, hidden),
        box_predictor=FastRCNNPredictor(hidden, num_rows),
        box_score_thresh=SCORE_THRESHOLD,
        box_batch_size_per_image=layout.num_sampled_proposals,
        **transform,
    )


_BUILDERS: dict[str, Callable[..., nn.Module]] = {
    "fcos": _fcos,
    "retinanet": _retinanet,
    "faster_rcnn": _faster_rcnn,
}
