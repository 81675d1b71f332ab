"""From a section to a model of transformers with its weights and its classes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch

from autokd.config import TransformersDetector
from autokd.detectors.labels import LabelMap, class_order, same_labels
from autokd.detectors.transformers.adapter import TransformersAdapter
from autokd.detectors.transformers.library import PROGRAM_ERRORS, first_line, transformers_library
from autokd.detectors.transformers.model_config import config_of, unreachable, with_classes
from autokd.detectors.transformers.processor import processor_of
from autokd.detectors.transformers.weights import check_safe, pickled_weights
from autokd.detectors.weights import load_weights
from autokd.errors import DetectorError

_OF_CLASSES = re.compile(r"class_embed|class_labels_classifier|score_head")
"""Names of the weights whose shape depends on the classes."""
_UNNAMED = re.compile(r"LABEL_\d+")
"""Name that transformers gives a class that has none."""
_NO_CLASS = "N/A"
"""Name of the rows that COCO's numbering leaves empty."""


def build_transformers_detector(
    section: TransformersDetector,
    num_classes: int,
    image_size_px: tuple[int, int] | None,
    classes: Sequence[str] | None,
) -> TransformersAdapter:
    """Build the detector of a section, on the CPU and in training mode.

    Args:
        section: the configuration.
        num_classes: classes of the data set.
        image_size_px: (height, width) into which the data are scaled and padded; None: no size is checked.
        classes: names of the data set's classes; None: the model has them in its order.

    Raises:
        DetectorError: if there is no such model, its weights are pickled, its classes have no names or lack some of the
            data set's, its image processor pads otherwise, or images have too few cells for its queries.
    """
    config = config_of(section)
    labels = _label_map(section, config, num_classes, classes)
    names = labels.model_classes or tuple(classes or (f"class {k}" for k in range(num_classes)))
    with_classes(config, names)
    model = _random_model(config, section) if section.name is None else _loaded_model(section, config)
    processor = processor_of(section, config.model_type, image_size_px)
    architecture = section.name or f"{config.model_type} of transformers"
    detector = TransformersAdapter(model.train(), processor, architecture, labels)
    if image_size_px is not None:
        detector.check_cells(image_size_px)
    if section.checkpoint is not None:
        load_weights(detector, section.checkpoint)
    return detector


def _label_map(section: TransformersDetector, config: Any, num_classes: int, classes: Sequence[str] | None) -> LabelMap:
    if section.name is None or section.new_head:
        return same_labels(num_classes)
    found = tuple(config.id2label[label] for label in sorted(config.id2label))
    if section.classes is not None:
        if len(section.classes) != len(found):
            raise DetectorError(
                f"{section.name}: 'classes' has {len(section.classes)} names, and the model {len(found)} classes. Give "
                "a name to each of the model's classes, in its order."
            )
        found = section.classes
    if classes is None:
        if len(found) != num_classes:
            raise DetectorError(
                f"{section.name}: has {len(found)} classes, not {num_classes}. Give the names of yours."
            )
        return same_labels(num_classes)
    if all(_UNNAMED.fullmatch(name) for name in found):
        raise DetectorError(
            f"{section.name}: its config.json names no classes (id2label has {found[0]}, ...), so they cannot be "
            "matched with the data set's. Give their names in the model's order as 'classes', or start a new head with "
            "'new_head: true' and train it."
        )
    named = [f"{name} {label}" if name == _NO_CLASS else name for label, name in enumerate(found)]
    return LabelMap(class_order(named, classes, section.name), len(named), tuple(named))


def _random_model(config: Any, section: TransformersDetector) -> Any:
    try:
        return transformers_library().AutoModelForObjectDetection.from_config(config)
    except PROGRAM_ERRORS as error:
        raise DetectorError(
            f"config: transformers cannot build this {config.model_type} ({first_line(error)}). Correct the keys of "
            f"'config': {', '.join(section.config)}."
        ) from error


def _loaded_model(section: TransformersDetector, config: Any) -> Any:
    assert section.name is not None
    if section.folder is not None:
        check_safe(section.folder)
    try:
        with torch.random.fork_rng(devices=[]):
            model = transformers_library().AutoModelForObjectDetection.from_pretrained(
                section.name,
                revision=section.revision,
                config=config,
                use_safetensors=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=section.new_head,
                dtype=torch.float32,
            )
    except PROGRAM_ERRORS as error:
        if "safetensors" in str(error):
            raise pickled_weights(section.name) from error
        if section.folder is None:
            raise unreachable(section.name, error) from error
        raise DetectorError(
            f"{section.name}: its weights do not fit its configuration ({first_line(error)}). Leave out the keys of "
            "'config' that change the structure, and use 'new_head: true' for other classes."
        ) from error
    if section.new_head:
        _renew_head(model, config)
    return model


def _renew_head(model: Any, config: Any) -> None:
    """Give all weights of the classes random values, also those of another model that has as many classes."""
    fresh = transformers_library().AutoModelForObjectDetection.from_config(config).state_dict()
    own = model.state_dict()
    model.load_state_dict({name: fresh[name] if _OF_CLASSES.search(name) else own[name] for name in own})
