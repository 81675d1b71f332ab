"""Reading a model of MMDetection while it runs, and giving its methods other results, without changing the model.

``model.loss`` of MMDetection computes maps, runs the heads and returns only losses. AutoKD needs three more things of
the same pass: losses that start from maps which were computed before (so that the gradient on exactly these maps can
be measured), the outputs of the heads, and heads that run as in training although the model is in evaluation mode.
Each context manager here does one of these for the time of a call, and leaves nothing behind when an error ends it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn


@contextmanager
def patched_methods(part: nn.Module, replacements: Mapping[str, Callable[..., Any]]) -> Iterator[None]:
    """Replace methods of one module within the context.

    Args:
        part: the module; other instances of its class keep their methods.
        replacements: method name -> function, called without ``self``.
    """
    # An attribute of the instance hides the method of the class. ``object.__setattr__`` goes past the one of
    # ``nn.Module``, which registers parameters and modules by their type: a replacement is neither, whatever it is.
    for name, replacement in replacements.items():
        object.__setattr__(part, name, replacement)
    try:
        yield
    finally:
        for name in replacements:
            object.__delattr__(part, name)  # the method of the class is visible again


@contextmanager
def recorded_outputs(part: nn.Module) -> Iterator[list[Any]]:
    """Yield a list to which each call of ``part`` within the context appends what it returns."""
    outputs: list[Any] = []
    handle = part.register_forward_hook(lambda module, arguments, output: outputs.append(output))
    try:
        yield outputs
    finally:
        handle.remove()


@contextmanager
def training_form(parts: list[nn.Module], training: bool) -> Iterator[None]:
    """Set the flag ``training`` of the given modules, and not of their children, within the context.

    Some heads return other quantities in training than in detection (RepPoints points instead of boxes, FCOS distances
    in strides instead of pixels), and only the former have a loss.
    """
    # Not ``Module.train``, which would reach the children: batch norms would then update their statistics in
    # evaluation, and dropout would draw random numbers.
    before = [part.training for part in parts]
    for part in parts:
        part.training = training
    try:
        yield
    finally:
        for part, was_training in zip(parts, before):
            part.training = was_training


@contextmanager
def masked_children(part: nn.Module, names: tuple[str, ...]) -> Iterator[None]:
    """Let the children ``names`` of ``part`` be None within the context."""
    # In ``_modules`` itself: assigning None to the attribute would drop the child, and with it the place of its weights
    # in the order of the state dict.
    held = {name: part._modules[name] for name in names if part._modules.get(name) is not None}
    with ExitStack() as stack:
        for name, child in held.items():
            part._modules[name] = None
            stack.callback(part._modules.__setitem__, name, child)
        yield
