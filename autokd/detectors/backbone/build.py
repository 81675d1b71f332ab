"""From a section to a backbone with its weights: out of transformers or torchvision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models._utils import IntermediateLayerGetter

from autokd.config import Backbone, BackboneTeacher
from autokd.detectors.backbone.adapter import BackboneAdapter
from autokd.detectors.torchvision.backbone import load_body
from autokd.detectors.torchvision.bodies import ChannelsFirst, new_body, plan_of
from autokd.detectors.torchvision.pretrained import entry_of, entry_of_file, obtain, pixel_statistics
from autokd.detectors.transformers.library import PROGRAM_ERRORS, first_line, transformers_library
from autokd.detectors.transformers.model_config import overridden, unreachable
from autokd.detectors.transformers.weights import check_safe, pickled_weights
from autokd.errors import DetectorError

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of ImageNet's colors, the ordinary ones."""
_STAGES = (2, 3, 4)
_COARSEST_PX = 32
"""Stride of the last stage of every backbone of stages."""


def build_backbone_teacher(
    section: BackboneTeacher, num_classes: int, data_size_px: tuple[int, int]
) -> BackboneAdapter:
    """Build the teacher of a section, on the CPU and in training mode.

    Args:
        section: the configuration.
        num_classes: classes of the data set.
        data_size_px: (height, width) of the network's input.

    Raises:
        DetectorError: if there is no such backbone, its weights are absent, broken or pickled, it has no such stages,
            or its ``image_size_px`` gives no whole strides.
    """
    make = _of_torchvision if section.is_torchvisions else _of_transformers
    model, maps_of, statistics, patch_px = make(section)
    assert section.name is not None
    return BackboneAdapter(
        model, maps_of, section.name, num_classes, statistics, patch_px, data_size_px, section.image_size_px
    )


def _of_torchvision(section: BackboneTeacher) -> tuple[nn.Module, Any, Any, int]:
    config = Backbone.model_validate({"name": section.name})
    body, plan = new_body(config), plan_of(config)
    stages = section.stages or _STAGES
    if not set(stages) <= {1, 2, 3, 4}:
        raise DetectorError(f"{section.name}: has the stages 1 to 4, not {list(stages)}. Correct 'stages'.")
    levels = {plan.stages[stage - 1][-1]: str(stage) for stage in stages}
    entry = None
    if section.weights is not None:
        entry = entry_of(str(section.name), section.weights)
        file = obtain(entry)
    else:
        assert section.checkpoint is not None, "the section's validator asks for weights"
        file = section.checkpoint
        entry = entry_of_file(str(section.name), file)
    load_body(body, file)
    statistics = (pixel_statistics(entry) if entry is not None else None) or _IMAGENET
    getter = ChannelsFirst if plan.is_channels_last else IntermediateLayerGetter
    return getter(body, levels), _maps_of_torchvision, statistics, _COARSEST_PX


def _maps_of_torchvision(model: nn.Module, pixels_BCHW: Tensor) -> list[Tensor]:
    return list(model(pixels_BCHW).values())


def _of_transformers(section: BackboneTeacher) -> tuple[nn.Module, Any, Any, int]:
    model = _loaded(section)
    return model, _maps_of_transformers, _statistics(section), _patch_px(model.config)


def _maps_of_transformers(model: nn.Module, pixels_BCHW: Tensor) -> Sequence[Tensor]:
    maps: Sequence[Tensor] = model(pixel_values=pixels_BCHW).feature_maps
    return maps


def _loaded(section: BackboneTeacher) -> Any:
    assert section.name is not None
    library = transformers_library()
    if section.folder is not None:
        check_safe(section.folder)
    try:
        config = library.AutoConfig.from_pretrained(section.name, revision=section.revision, trust_remote_code=False)
    except PROGRAM_ERRORS as error:
        raise unreachable(section.name, error) from error
    if type(config) not in library.MODEL_FOR_BACKBONE_MAPPING:
        raise DetectorError(
            f"{section.name}: a model of type {config.model_type} is no backbone of transformers. Give one that "
            "AutoBackbone loads, such as dinov2, dinov3_vit, swin or convnext."
        )
    overridden(config, section.config)
    if section.stages is not None:
        config.out_indices = _known_stages(section, config)
    try:
        with torch.random.fork_rng(devices=[]):
            # By the class itself: AutoBackbone asks the hub for every name that is no folder beside the process.
            return (
                library.MODEL_FOR_BACKBONE_MAPPING[type(config)]
                .from_pretrained(
                    section.name, revision=section.revision, config=config, use_safetensors=True, dtype=torch.float32
                )
                .train()
            )
    except PROGRAM_ERRORS as error:
        if section.folder is None and "safetensors" in str(error):
            raise pickled_weights(section.name) from error
        raise DetectorError(
            f"{section.name}: its weights do not fit its configuration ({first_line(error)}). Leave out the keys of "
            "'config' that change the structure."
        ) from error


def _known_stages(section: BackboneTeacher, config: Any) -> list[int]:
    number = len(config.stage_names)
    assert section.stages is not None
    if not all(1 <= stage < number for stage in section.stages):
        raise DetectorError(
            f"{section.name}: has the stages 1 to {number - 1}, not {list(section.stages)}. Correct 'stages'."
        )
    return list(section.stages)


def _statistics(section: BackboneTeacher) -> tuple[Sequence[float], Sequence[float]]:
    """Return mean and deviation of the colors as the model's own image processor has them, or ImageNet's."""
    try:
        found = transformers_library().AutoImageProcessor.from_pretrained(section.name, revision=section.revision)
    except PROGRAM_ERRORS:  # most folders of backbones have no preprocessor_config.json
        return _IMAGENET
    if not getattr(found, "do_normalize", True):
        return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    return tuple(found.image_mean), tuple(found.image_std)


def _patch_px(config: Any) -> int:
    """Return the pixels of which both sides must be multiples: a patch, or the stride of the last stage."""
    patch = getattr(config, "patch_size", None)
    if patch is None or hasattr(config, "depths"):  # stages, each of half the cells of the one before
        return _COARSEST_PX
    return int(patch if isinstance(patch, int) else patch[0])
