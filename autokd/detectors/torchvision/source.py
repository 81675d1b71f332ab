"""A detector as a short script of pure torchvision, so that ``student.pt`` outlives AutoKD."""

from __future__ import annotations

from collections.abc import Sequence

from autokd.config import Backbone, TorchvisionDetector
from autokd.detectors.torchvision.bodies import plan_of
from autokd.detectors.torchvision.builders import SCORE_THRESHOLD, has_no_epsilon, inference_settings
from autokd.detectors.torchvision.initial_weights import num_head_rows
from autokd.detectors.torchvision.layout import Layout, choose_layout
from autokd.detectors.torchvision.norms import norm_of, num_groups
from autokd.detectors.torchvision.plain import transform_settings

Part = tuple[list[str], list[str]]
"""Imports and statements."""

_DETECTION = "from torchvision.models.detection"
_USE = 'model([image]) -> [{"boxes", "scores", "labels"}]; image: (3, H, W) in [0, 1], of any size'


def plain_torchvision_source(
    config: TorchvisionDetector,
    num_classes: int,
    image_size_px: tuple[int, int],
    classes: Sequence[str] | None = None,
) -> str:
    """Return a script that builds ``model`` with torch and torchvision alone and loads ``student.pt`` in it.

    For an FCOS with blocks (1, 1, 1, 1), width 8 and 3 classes on 120 x 160 pixels it begins and ends with::

        import torch
        from torch import nn
        from torchvision.models.detection import FCOS
        ...
        model.load_state_dict(torch.load("student.pt", weights_only=True))
        model.eval()  # model([image]) -> [{"boxes", "scores", "labels"}]; image: (3, H, W) in [0, 1], of any size

    Args:
        config: the section of the detector.
        num_classes: object classes, without a background.
        image_size_px: (height, width) of the network's input.
        classes: as for ``plain_torchvision_model``.

    Raises:
        DetectorError: as for ``plain_torchvision_model``.
    """
    layout = choose_layout(config.architecture, image_size_px)
    settings = transform_settings(config, layout, image_size_px)
    transform = "".join(f"{name}={value}, " for name, value in settings.items()).rstrip()
    num_rows = num_head_rows(config, num_classes, classes)
    if config.is_builders:
        parts = [_builder(config, num_rows, transform), _norms("model.backbone.body", config)]
        if has_no_epsilon(config):
            parts.append(([f"{_DETECTION}._utils import overwrite_eps"], ["overwrite_eps(model, 0.0)"]))
    else:
        parts = [
            _body(config.backbone),
            _pyramid(config, layout),
            _norms("backbone.body", config),
            _anchors(layout),
            _HEADS[config.architecture](config, num_rows, layout, transform),
        ]
    imports = sorted({line for lines, _ in parts for line in lines})
    statements = [line for _, lines in parts for line in lines]
    load = ['model.load_state_dict(torch.load("student.pt", weights_only=True))', f"model.eval()  # {_USE}"]
    return "\n".join(["import torch", "from torch import nn", *imports, "", *statements, *load, ""])


def _builder(config: TorchvisionDetector, num_rows: int, transform: str) -> Part:
    name = config.architecture
    arguments = "".join(f"{key}={value}, " for key, value in inference_settings(name).items())
    return (
        [f"{_DETECTION} import {name}"],
        [
            f"model = {name}(",
            f"    weights=None, weights_backbone=None, num_classes={num_rows},",
            f"    {arguments}{transform}",
            ")",
        ],
    )


def _norms(body: str, config: TorchvisionDetector) -> Part:
    """Replace the batch norms of the body as ``replace_batch_norms`` does."""
    norm = norm_of(config)
    if norm == "batch":
        return [], []
    imports, lines = ["from torchvision.ops import FrozenBatchNorm2d"], []
    new = "FrozenBatchNorm2d(part.num_features, part.eps)"
    if norm == "group":
        imports, new = [], "nn.GroupNorm(groups(part.num_features), part.num_features)"
        lines = ["groups = lambda n: max(g for g in range(1, max(1, n // 8) + 1) if n % g == 0)"]
    return imports, [
        *lines,
        f"for parent in list({body}.modules()):",
        "    for name, part in list(parent.named_children()):",
        "        if isinstance(part, nn.BatchNorm2d):",
        f"            setattr(parent, name, {new})",
    ]


def _body(backbone: Backbone) -> Part:
    if backbone.name is not None:
        features = "" if backbone.name.startswith(("res", "wide_res")) else ".features"
        return (
            [f"from torchvision.models import {backbone.name}"],
            [f"body = {backbone.name}(weights=None){features}"],
        )
    return (
        ["from torchvision.models.resnet import BasicBlock, ResNet"],
        [
            f"blocks, width = {backbone.blocks}, {backbone.width}",
            "body = ResNet(BasicBlock, blocks)  # 64 channels wide: its stages are made anew",
            "body.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)",
            "body.bn1, body.inplanes = nn.BatchNorm2d(width), width",
            "for i in range(4):",
            "    stage = body._make_layer(BasicBlock, width * 2**i, blocks[i], stride=1 if i == 0 else 2)",
            '    setattr(body, f"layer{i + 1}", stage)',
        ],
    )


def _pyramid(config: TorchvisionDetector, layout: Layout) -> Part:
    imports = [f"{_DETECTION}.backbone_utils import BackboneWithFPN"]
    channels, plan = config.fpn_channels, plan_of(config.backbone)
    widths = [plan.channels[stage - 1] for stage in layout.stages]
    arguments = f"body, levels, {widths}, {channels}"
    if layout.top == "p6p7":
        imports.append("from torchvision.ops.feature_pyramid_network import LastLevelP6P7")
        arguments += f", LastLevelP6P7({channels}, {channels})"
    levels = ", ".join(f'"{plan.stages[stage - 1][-1]}": "p{stage + 1}"' for stage in layout.stages)
    statements = [f"levels = {{{levels}}}", f"backbone = BackboneWithFPN({arguments})"]
    if layout.top == "none":
        statements.append("backbone.fpn.extra_blocks = None")
    if plan.is_channels_last:
        imports.append("from torchvision.models._utils import IntermediateLayerGetter")
        statements += [
            "class ChannelsFirst(IntermediateLayerGetter):",
            "    def forward(self, x):",
            "        return {k: v.permute(0, 3, 1, 2) for k, v in super().forward(x).items()}",
            "backbone.body = ChannelsFirst(body, levels)",
        ]
    return imports, statements


def _anchors(layout: Layout) -> Part:
    return (
        [f"{_DETECTION}.anchor_utils import AnchorGenerator"],
        [
            f"sizes, ratios = {layout.anchor_sizes_px}, {layout.aspect_ratios}",
            "anchors = AnchorGenerator(sizes, (ratios,) * len(sizes))",
        ],
    )


def _fcos(config: TorchvisionDetector, num_classes: int, layout: Layout, transform: str) -> Part:
    channels, convs = config.fpn_channels, config.head_convs
    return (
        [
            f"{_DETECTION} import FCOS",
            f"{_DETECTION}.fcos import FCOSClassificationHead, FCOSHead, FCOSRegressionHead",
        ],
        [
            f"norm = lambda channels: nn.GroupNorm({num_groups(channels)}, channels)",
            f"head = FCOSHead({channels}, 1, {num_classes}, num_convs=0)",
            "head.classification_head = FCOSClassificationHead("
            f"{channels}, 1, {num_classes}, {convs}, norm_layer=norm)",
            f"head.regression_head = FCOSRegressionHead({channels}, 1, {convs}, norm_layer=norm)",
            "model = FCOS(",
            f"    backbone, {num_classes}, anchor_generator=anchors, head=head, score_thresh={SCORE_THRESHOLD},",
            f"    {transform}",
            ")",
        ],
    )


def _retinanet(config: TorchvisionDetector, num_classes: int, layout: Layout, transform: str) -> Part:
    channels = config.fpn_channels
    conv = f"Conv2dNormActivation({channels}, {channels}, norm_layer=norm)"
    return (
        [
            f"{_DETECTION} import RetinaNet",
            f"{_DETECTION}.retinanet import RetinaNetHead",
            "from torchvision.ops import Conv2dNormActivation",
        ],
        [
            f"norm = lambda channels: nn.GroupNorm({num_groups(channels)}, channels)",
            f"head = RetinaNetHead({channels}, {layout.num_anchors_per_cell}, {num_classes}, norm_layer=norm)",
            "for branch in (head.classification_head, head.regression_head):",
            f"    branch.conv = nn.Sequential(*({conv} for _ in range({config.head_convs})))",
            "model = RetinaNet(",
            f"    backbone, {num_classes}, anchor_generator=anchors, head=head, score_thresh={SCORE_THRESHOLD},",
            f"    detections_per_img=100, {transform}",
            ")",
        ],
    )


def _faster_rcnn(config: TorchvisionDetector, num_rows: int, layout: Layout, transform: str) -> Part:
    channels, hidden, number = config.fpn_channels, 4 * config.fpn_channels, layout.num_proposals
    pooled = ", ".join(f'"p{stage + 1}"' for stage in layout.stages)
    scale = f"canonical_scale={layout.canonical_scale_px}"
    return (
        [
            f"{_DETECTION} import FasterRCNN",
            f"{_DETECTION}.faster_rcnn import FastRCNNPredictor, TwoMLPHead",
            f"{_DETECTION}.rpn import RPNHead",
            "from torchvision.ops import MultiScaleRoIAlign",
        ],
        [
            "model = FasterRCNN(  # its labels count from 1: 0 is the background",
            f"    backbone, rpn_anchor_generator=anchors, {transform}",
            f"    rpn_head=RPNHead({channels}, {layout.num_anchors_per_cell}, conv_depth={config.head_convs}),",
            f"    rpn_pre_nms_top_n_test={number}, rpn_post_nms_top_n_test={number},",
            f"    box_roi_pool=MultiScaleRoIAlign([{pooled}], 7, {layout.samples_per_bin}, {scale}),",
            f"    box_head=TwoMLPHead({channels * 49}, {hidden}),",
            f"    box_predictor=FastRCNNPredictor({hidden}, {num_rows}),",
            f"    box_score_thresh={SCORE_THRESHOLD},",
            ")",
        ],
    )


_HEADS = {"fcos": _fcos, "retinanet": _retinanet, "faster_rcnn": _faster_rcnn}
