"""From a section with ``framework: mmdet`` to a detector."""

from __future__ import annotations

import logging
import pickle
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from autokd.config import MmdetDetector
from autokd.detectors.labels import LabelMap, class_order, same_labels
from autokd.detectors.mmdet.adapter import MmdetAdapter
from autokd.detectors.mmdet.capabilities import family_of
from autokd.detectors.mmdet.checkpoint import Checkpoint, load_checkpoint, read_checkpoint
from autokd.detectors.mmdet.config_file import config_text, resolve_config
from autokd.detectors.mmdet.library import PROGRAM_ERRORS, require_mmdet
from autokd.detectors.mmdet.pretrained_weights import inert_weights
from autokd.errors import DetectorError

logger = logging.getLogger(__name__)


def build_mmdet_detector(
    section: MmdetDetector,
    num_classes: int,
    image_size_px: tuple[int, int],
    classes: Sequence[str] | None = None,
) -> MmdetAdapter:
    """Build the detector of a section; weights come from its ``checkpoint``, else from the config's initialization.

    Args:
        section: the configuration.
        num_classes: object classes, without a background.
        image_size_px: (height, width); the first detector of its kind is tried on such an image, so that a model that
            cannot train is refused here.
        classes: names of the data set's classes in its order. A checkpoint that has these and more keeps its own head,
            and the adapter picks the data set's classes by name. None: by number.

    Raises:
        DetectorError: if a config or a checkpoint is missing, broken, or of another model.
    """
    if classes is not None and len(classes) != num_classes:
        raise DetectorError(f"num_classes is {num_classes}, but {len(classes)} names are given. Name each class once.")
    require_mmdet()
    checkpoint = read_checkpoint(section.checkpoint) if section.checkpoint is not None else None
    labels = _label_map(section, checkpoint, num_classes, classes)
    model = build_mmdet_model(section, labels.num_model_classes, pretrained=checkpoint is None)
    if checkpoint is not None:
        load_checkpoint(model, checkpoint, new_head=section.new_head)
    else:
        _warn_of_frozen_noise(model, section.config)
    if not hasattr(model.data_preprocessor, "pad_size_divisor"):
        raise DetectorError(
            f"{section.config}: the data_preprocessor is a {type(model.data_preprocessor).__name__}, which has "
            "no colors and no padding. Give it a DetDataPreprocessor."
        )
    detector = family_of(type(model), section.config)(model, section.config, labels)
    _try_once(detector, (config_text(section), labels, image_size_px))
    return detector


def adapter_of(model: Any, name: str) -> MmdetAdapter:
    """Return an adapter around a model that other code has built and trains.

    Args:
        model: a detector of mmdet; which of its parameters train, and its padding, stay as they are.
        name: its name in errors.

    Raises:
        DetectorError: if the model is of no known family.
    """
    require_mmdet()
    head = model.roi_head.bbox_head if getattr(model, "roi_head", None) is not None else model.bbox_head
    num_classes = int(getattr(head, "num_classes", None) or head[0].num_classes)
    trains = {parameter: parameter.requires_grad for parameter in model.parameters()}
    divisor = model.data_preprocessor.pad_size_divisor
    adapter = family_of(type(model), name)(model, name, same_labels(num_classes))
    model.data_preprocessor.pad_size_divisor = divisor
    for parameter, does_train in trains.items():
        parameter.requires_grad_(does_train)
    return adapter


_tried: set[Any] = set()
"""Models and sizes that ran in this process before. The trial costs a forward, and a search builds the same student
many times."""


def _try_once(detector: MmdetAdapter, key: Any) -> None:
    if key not in _tried:
        with _quiet():
            detector.check_runs(key[-1])
        _tried.add(key)


def _label_map(
    section: MmdetDetector, checkpoint: Checkpoint | None, num_classes: int, classes: Sequence[str] | None
) -> LabelMap:
    known = (checkpoint.classes if checkpoint is not None else None) or section.classes
    if checkpoint is None or known is None or classes is None or section.new_head:
        return same_labels(num_classes)
    return LabelMap(class_order(known, classes, str(checkpoint.path)), len(known), tuple(known))


def build_mmdet_model(section: MmdetDetector, num_classes: int, *, pretrained: bool = True) -> Any:
    """Return the plain mmdet model of a section, initialized as its config says.

    Args:
        section: the configuration.
        num_classes: object classes, without a background.
        pretrained: False leaves out weights that the config would have downloaded, if a checkpoint follows.

    Raises:
        DetectorError: if the config does not describe a model that can be built here.
    """
    config = resolve_config(section, num_classes)
    from mmdet.registry import MODELS
    from mmengine.registry import DefaultScope, init_default_scope

    if not pretrained:
        _drop_pretrained(config.model)
    # mmdet's registries look names up in mmengine's current scope, also long after the build (losses, assigners).
    if DefaultScope.get_current_instance() is None:
        init_default_scope(config.get("default_scope", "mmdet"))
    try:
        with _quiet(), inert_weights(), DefaultScope.overwrite_default_scope(config.get("default_scope", "mmdet")):
            model = MODELS.build(config.model)
            model.init_weights()
    except NotImplementedError as error:
        raise DetectorError(f"{section.config}: needs an operator that is absent here ({error}).") from error
    except (pickle.UnpicklingError, EOFError, *PROGRAM_ERRORS) as error:
        raise DetectorError(
            f"{section.config}: MMDetection cannot build this model ({type(error).__name__}: {error}). Correct the "
            "config or 'options'; weights that cannot be downloaded are left out with "
            "'options: {model.backbone.init_cfg: null}'."
        ) from error
    return model


def _warn_of_frozen_noise(model: Any, where: str) -> None:
    """Warn of frozen random weights: the zoo's backbones freeze their first stages, which expects pretrained ones."""
    backbone = model.backbone
    has_frozen = any(parameter.ndim == 4 and not parameter.requires_grad for parameter in backbone.parameters())
    if has_frozen and not _reads_file(getattr(backbone, "init_cfg", None)):
        logger.warning(
            "%s: the backbone has frozen layers, and neither a checkpoint nor pretrained weights to fill them. Thaw "
            "them with options: {model.backbone.frozen_stages: -1, model.backbone.norm_eval: false}.",
            where,
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence mmengine's line for each initialized parameter, and mmdet's warnings of its own deprecated calls."""
    from mmengine.logging import MMLogger

    log = MMLogger.get_current_instance()
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for library in ("mmdet", "mmcv", "mmengine", "torch.functional"):
                warnings.filterwarnings("ignore", module=rf"{library}\b")
            yield
    finally:
        log.setLevel(level)


def _drop_pretrained(part: Any) -> None:
    """Leave out every ``init_cfg`` that reads a file, and every ``pretrained``."""
    for name, value in list(part.items()):
        if name == "pretrained" or (name == "init_cfg" and _reads_file(value)):
            part[name] = None
        elif isinstance(value, dict):
            _drop_pretrained(value)


def _reads_file(init: Any) -> bool:
    parts = init if isinstance(init, (list, tuple)) else [init]
    return any(isinstance(part, dict) and part.get("type") == "Pretrained" for part in parts)
