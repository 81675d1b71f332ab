"""Listening to a model's parts, and answering for its methods, without changing the model.

mmdet's ``loss`` computes maps, runs the heads, and gives only numbers. To have it start from maps that were already
computed, its ``extract_feat`` is answered by us for the time of the call; to have the heads' outputs, a
hook remembers them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn


@contextmanager
def answered(part: nn.Module, answers: Mapping[str, Callable[..., Any]]) -> Iterator[None]:
    """Inside, methods of ``part`` are those of ``answers``; afterwards its own again."""
    for name, answer in answers.items():
        object.__setattr__(part, name, answer)
    try:
        yield
    finally:
        for name in answers:
            object.__delattr__(part, name)


@contextmanager
def heard(part: nn.Module) -> Iterator[list[Any]]:
    """A list that fills with what each call of ``part`` returns."""
    outputs: list[Any] = []
    handle = part.register_forward_hook(lambda module, arguments, output: outputs.append(output))
    try:
        yield outputs
    finally:
        handle.remove()


@contextmanager
def training_form(parts: list[nn.Module], training: bool) -> Iterator[None]:
    """Inside, the parts themselves - not their children, so neither norms nor dropout - count as training or not.

    Some heads say other things in training than in detection (RepPoints its points instead of boxes, FCOS distances in
    strides instead of pixels), and only the former has a loss.
    """
    before = [part.training for part in parts]
    for part in parts:
        part.training = training
    try:
        yield
    finally:
        for part, was_training in zip(parts, before):
            part.training = was_training


@contextmanager
def without(part: nn.Module, names: tuple[str, ...]) -> Iterator[None]:
    """Inside, the children ``names`` of ``part`` are None; their weights stay where they are."""
    held = {name: part._modules[name] for name in names if part._modules.get(name) is not None}
    with ExitStack() as stack:
        for name, child in held.items():
            part._modules[name] = None
            stack.callback(part._modules.__setitem__, name, child)
        yield
