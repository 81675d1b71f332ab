"""The family of a detector of MMDetection, by the structure that its config describes."""

from __future__ import annotations

import pytest

from autokd.detectors import detector_family_of
from autokd.detectors.mmdet.capabilities import detector_family_of_model
from autokd.detectors.mmdet.config_file import read_config
from tests.support.mmdet_cases import ARCHITECTURES, section

FAMILIES = {
    "retinanet": "anchor_based",
    "atss": "anchor_based",
    "gfl": "anchor_based",
    "fcos": "anchor_free",
    "reppoints": "anchor_free",
    "rtmdet": "anchor_free",
    "yolox": "anchor_free",
    "tood": "anchor_free",
    "faster_rcnn": "two_stage",
    "cascade_rcnn": "two_stage",
    "mask_rcnn": "two_stage",
    "detr": None,
    "deformable_detr": None,
    "dino": None,
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_config_says_its_family(name):
    assert detector_family_of(section(name)) == FAMILIES[name]


@pytest.mark.parametrize(("name", "family"), [("retinanet", "anchor_based"), ("fcos", "anchor_free")])
def test_a_head_without_a_generator_in_the_config_says_it_by_its_class(name, family):
    model = read_config(section(name)).model.to_dict()
    model["bbox_head"].pop("anchor_generator", None)
    assert detector_family_of_model(model, "a config") == family
