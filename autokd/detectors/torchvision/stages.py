"""Stages of a body that are not trained."""

from __future__ import annotations

from torch import nn

from autokd.config import TorchvisionDetector
from autokd.detectors.torchvision.bodies import BodyPlan, plan_of, plan_of_official
from autokd.detectors.torchvision.initial_weights import backbone_name
from autokd.detectors.torchvision.norms import num_trainable_stages


def plan_of_section(section: TorchvisionDetector) -> BodyPlan:
    """Return the parts of a section's body, also of one that a builder of torchvision makes."""
    if not section.is_builders:
        return plan_of(section.backbone)
    return plan_of_official(backbone_name(section))


def freeze_stages(body: nn.Module, section: TorchvisionDetector) -> tuple[str, ...]:
    """Freeze the parameters of the stages that a section does not train.

    Args:
        body: the section's body.
        section: the configuration.

    Returns:
        Names of the body's children that are frozen.
    """
    names = plan_of_section(section).frozen(num_trainable_stages(section))
    for name in names:
        body.get_submodule(name).requires_grad_(False)
    return names
