"""A detector as a short script of pure torchvision, so that ``student.pt`` outlives AutoKD."""

from __future__ import annotations

from autokd.config import Backbone, TorchvisionDetector
from autokd.detectors.layout import Layout, choose_layout
from autokd.detectors.plain import SCORE_THRESHOLD, num_groups


def plain_torchvision_source(
    config: TorchvisionDetector, num_classes: int, image_size_px: tuple[int, int]
) -> str:
    """The script that builds ``model`` with torch and torchvision alone and loads ``student.pt`` in it.

    For an FCOS with blocks (1, 1, 1, 1), width 8 and 3 classes on 120 x 160 pixels::

        import torch
        from torch import nn
        from torchvision.models.detection import FCOS
        ...
        model.load_state_dict(torch.load("student.pt", weights_only=True))
        model.eval()  # model([image]) -> [{"boxes", "scores", "labels"}]; image: (3, H, W) in [0, 1], any size

    num_classes: object classes, without a background. image_size_px: (height, width).
    """
    layout = choose_layout(config.architecture, image_size_px)
    imports, head = _HEADS[config.architecture](config, num_classes, layout)
    size = (
        f"min_size={min(image_size_px)}, max_size={max(image_size_px)}, size_divisible={layout.pad_multiple_px},"
    )
    return "\n".join(
        (
            "import torch",
            "from torch import nn",
            *imports,
            "from torchvision.models.detection.anchor_utils import AnchorGenerator",
            "from torchvision.models.detection.backbone_utils import BackboneWithFPN",
            "",
            *_body(config.backbone),
            *_pyramid(config, layout),
            f"anchors = AnchorGenerator({layout.anchor_sizes_px}, ({layout.aspect_ratios},) * {len(layout.levels)})",
            *(line.replace("SIZE", size) for line in head),
            'model.load_state_dict(torch.load("student.pt", weights_only=True))',
            'model.eval()  # model([image]) -> [{"boxes", "scores", "labels"}]; image: (3, H, W) in [0, 1], any size',
            "",
        )
    )


def _body(backbone: Backbone) -> list[str]:
    if backbone.name is not None:
        return [f"from torchvision.models import {backbone.name}", "", f"body = {backbone.name}(weights=None)"]
    return [
        "from torchvision.models.resnet import BasicBlock, ResNet",
        "",
        f"blocks, width = {backbone.blocks}, {backbone.width}",
        "body = ResNet(BasicBlock, blocks)  # 64 channels wide: its stages are made anew",
        "body.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)",
        "body.bn1, body.inplanes = nn.BatchNorm2d(width), width",
        "for i in range(4):",
        '    stage = body._make_layer(BasicBlock, width * 2**i, blocks[i], stride=1 if i == 0 else 2)',
        '    setattr(body, f"layer{i + 1}", stage)',
    ]


def _pyramid(config: TorchvisionDetector, layout: Layout) -> list[str]:
    channels = config.fpn_channels
    first = "width" if config.backbone.name is None else "body.inplanes // 8"
    layers = {f"layer{stage}": f"p{stage + 1}" for stage in layout.stages}
    widths = f"[{first} * factor for factor in {tuple(2 ** (stage - 1) for stage in layout.stages)}]"
    lines = [f"backbone = BackboneWithFPN(body, {layers}, {widths}, {channels})"]
    if layout.top == "none":
        lines.append("backbone.fpn.extra_blocks = None")
    elif layout.top == "p6p7":
        lines = [
            "from torchvision.ops.feature_pyramid_network import LastLevelP6P7",
            "",
            lines[0][:-1] + f", LastLevelP6P7({channels}, {channels}))",
        ]
    return lines


def _fcos(config: TorchvisionDetector, num_classes: int, layout: Layout) -> tuple[list[str], list[str]]:
    arguments = f"{config.fpn_channels}, 1, {num_classes}, {config.head_convs}, norm_layer=norm"
    regression = f"{config.fpn_channels}, 1, {config.head_convs}, norm_layer=norm"
    return (
        [
            "from torchvision.models.detection import FCOS",
            "from torchvision.models.detection.fcos import FCOSClassificationHead, FCOSHead, FCOSRegressionHead",
        ],
        [
            f"norm = lambda channels: nn.GroupNorm({num_groups(config.fpn_channels)}, channels)",
            f"head = FCOSHead({config.fpn_channels}, 1, {num_classes}, num_convs=0)",
            f"head.classification_head = FCOSClassificationHead({arguments})",
            f"head.regression_head = FCOSRegressionHead({regression})",
            "model = FCOS(",
            f"    backbone, {num_classes}, anchor_generator=anchors, head=head, SIZE",
            f"    score_thresh={SCORE_THRESHOLD},",
            ")",
        ],
    )


def _retinanet(config: TorchvisionDetector, num_classes: int, layout: Layout) -> tuple[list[str], list[str]]:
    channels = config.fpn_channels
    conv = f"Conv2dNormActivation({channels}, {channels}, norm_layer=norm)"
    return (
        [
            "from torchvision.models.detection import RetinaNet",
            "from torchvision.models.detection.retinanet import RetinaNetHead",
            "from torchvision.ops import Conv2dNormActivation",
        ],
        [
            f"norm = lambda channels: nn.GroupNorm({num_groups(channels)}, channels)",
            f"head = RetinaNetHead({channels}, {layout.num_anchors_per_cell}, {num_classes}, norm_layer=norm)",
            "for branch in (head.classification_head, head.regression_head):",
            f"    branch.conv = nn.Sequential(*({conv} for _ in range({config.head_convs})))",
            "model = RetinaNet(",
            f"    backbone, {num_classes}, anchor_generator=anchors, head=head, SIZE",
            f"    score_thresh={SCORE_THRESHOLD}, detections_per_img=100,",
            ")",
        ],
    )


def _faster_rcnn(config: TorchvisionDetector, num_classes: int, layout: Layout) -> tuple[list[str], list[str]]:
    channels, hidden = config.fpn_channels, 4 * config.fpn_channels
    pooled = [f"p{stage + 1}" for stage in layout.stages]
    return (
        [
            "from torchvision.models.detection import FasterRCNN",
            "from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead",
            "from torchvision.models.detection.rpn import RPNHead",
            "from torchvision.ops import MultiScaleRoIAlign",
        ],
        [
            "model = FasterRCNN(  # its labels count from 1: 0 is the background",
            "    backbone, rpn_anchor_generator=anchors, SIZE",
            f"    rpn_head=RPNHead({channels}, {layout.num_anchors_per_cell}, conv_depth={config.head_convs}),",
            f"    rpn_pre_nms_top_n_test={layout.num_proposals}, rpn_post_nms_top_n_test={layout.num_proposals},",
            f"    box_roi_pool=MultiScaleRoIAlign({pooled}, 7, 2, canonical_scale={layout.canonical_scale_px}),",
            f"    box_head=TwoMLPHead({channels * 49}, {hidden}),",
            f"    box_predictor=FastRCNNPredictor({hidden}, {num_classes + 1}), box_score_thresh={SCORE_THRESHOLD},",
            ")",
        ],
    )


_HEADS = {"fcos": _fcos, "retinanet": _retinanet, "faster_rcnn": _faster_rcnn}
