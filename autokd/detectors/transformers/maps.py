"""Where the maps of a model are: a hook takes them on their way from the encoder to the decoder.

The decoder reads the very maps that are taken, so that gradients of the losses reach them.

Legend: B images, C channels, H x W cells of a level, N cells of all levels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from autokd.errors import DetectorError
from autokd.tensors import full_precision

Size = tuple[int, int]


class MapsOnly(Exception):  # noqa: N818: it ends a forward on purpose
    """Ends a forward once the maps are there, if nothing after them is wanted."""


class Taken:
    """Values that the hooks of one forward have taken.

    Args:
        maps_only: whether the forward ends when the maps are there.
    """

    def __init__(self, maps_only: bool) -> None:
        self.maps: tuple[Tensor, ...] = ()
        self.sizes: list[Size] = []
        self._maps_only = maps_only

    def take(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Keep the maps in float32, and return them."""
        self.maps = tuple(full_precision(map_BCHW) for map_BCHW in maps)
        if self._maps_only:
            raise MapsOnly
        return self.maps

    def take_sequence(self, sequence_BNC: Tensor, sizes: Sequence[Size]) -> Tensor:
        """Keep a sequence of cells as maps, and return the sequence as a view of them."""
        parts = sequence_BNC.transpose(1, 2).split([height * width for height, width in sizes], dim=2)
        maps = self.take([part.unflatten(2, size) for part, size in zip(parts, sizes)])
        rows = [map_BCHW.flatten(2).transpose(1, 2) for map_BCHW in maps]
        return rows[0] if len(rows) == 1 else torch.cat(rows, 1)


Attach = Callable[[Any, Taken], list[Any]]
"""Registers hooks on a model, and returns their handles."""


@contextmanager
def taking_maps(model: nn.Module, attach: Attach, maps_only: bool) -> Iterator[Taken]:
    """Yield what a forward within the context takes.

    Args:
        model: an object detector of transformers.
        attach: registers the hooks of its type, as ``maps_of`` returns it.
        maps_only: whether the forward ends, by ``MapsOnly``, when the maps are there.
    """
    taken = Taken(maps_only)
    handles = attach(model, taken)
    try:
        yield taken
    finally:
        for handle in handles:
            handle.remove()


def maps_of(model: Any) -> Attach:
    """Return how the maps of a model are taken.

    Args:
        model: an object detector of transformers.

    Raises:
        DetectorError: if its type is none of those that are known.
    """
    kind = model.config.model_type
    for types, attach in _ATTACH.items():
        if kind in types:
            return attach
    raise DetectorError(
        f"model_type {kind}: no place is known from which its maps could be taken. Known types: "
        f"{', '.join(sorted(name for types in _ATTACH for name in types))}."
    )


def _from_hybrid_encoder(model: Any, taken: Taken) -> list[Any]:
    """The encoder gives a list of maps (RT-DETR, arXiv:2304.08069, section 4.2)."""

    def hook(_module: nn.Module, _given: Any, output: Any) -> Any:
        name = "feature_maps" if "feature_maps" in output else "last_hidden_state"  # of DEIMv2, and of the others
        setattr(output, name, list(taken.take(output[name])))
        return output

    return [model.model.encoder.register_forward_hook(hook)]


def _from_multi_level_encoder(model: Any, taken: Taken) -> list[Any]:
    """The encoder gives the cells of all levels in one sequence, and is told their sizes."""

    def hook(_module: nn.Module, _args: Any, kwargs: dict[str, Any], output: Any) -> Any:
        sizes = [(int(height), int(width)) for height, width in kwargs["spatial_shapes_list"]]
        output.last_hidden_state = taken.take_sequence(output.last_hidden_state, sizes)
        return output

    return [model.model.encoder.register_forward_hook(hook, with_kwargs=True)]


def _from_single_level_encoder(model: Any, taken: Taken) -> list[Any]:
    """The encoder gives the cells of the backbone's last map in one sequence."""

    def note_size(_module: nn.Module, _given: Any, output: Any) -> None:
        taken.sizes = [(output.shape[-2], output.shape[-1])]

    def hook(_module: nn.Module, _given: Any, output: Any) -> Any:
        output.last_hidden_state = taken.take_sequence(output.last_hidden_state, taken.sizes)
        return output

    return [
        model.model.input_projection.register_forward_hook(note_size),
        model.model.encoder.register_forward_hook(hook),
    ]


def _from_projector(model: Any, taken: Taken) -> list[Any]:
    """There is no encoder: the decoder reads one projected map of the backbone (RF-DETR), or several (LW-DETR)."""

    def hook(_module: nn.Module, _given: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            (map_BCHW,) = taken.take([output[0]])
            return (map_BCHW, *output[1:])
        maps = taken.take([pair[0] for pair in output])
        return [(map_BCHW, *pair[1:]) for map_BCHW, pair in zip(maps, output)]

    return [model.model.backbone.register_forward_hook(hook)]


def _from_patches(model: Any, taken: Taken) -> list[Any]:
    """Detection tokens and patches share all layers (YOLOS): the map is what the last layer reads of the patches.

    What it gives of them reaches no loss.
    """
    side, last = model.config.patch_size, model.vit.encoder.layer[-1]
    num_tokens = model.config.num_detection_tokens

    def note_size(_module: nn.Module, given: tuple[Tensor, ...]) -> None:
        height, width = given[0].shape[-2:]
        taken.sizes = [(height // side, width // side)]

    def hook(_module: nn.Module, given: tuple[Tensor, ...]) -> Any:
        tokens_BNC = given[0]
        patches = taken.take_sequence(tokens_BNC[:, 1:-num_tokens], taken.sizes)
        return (torch.cat([tokens_BNC[:, :1], patches, tokens_BNC[:, -num_tokens:]], 1), *given[1:])

    return [
        model.vit.embeddings.patch_embeddings.register_forward_pre_hook(note_size),
        last.register_forward_pre_hook(hook),
    ]


_ATTACH: dict[tuple[str, ...], Attach] = {
    ("rt_detr", "rt_detr_v2", "d_fine", "deimv2"): _from_hybrid_encoder,
    ("deformable_detr",): _from_multi_level_encoder,
    ("detr", "conditional_detr", "dab-detr", "table-transformer"): _from_single_level_encoder,
    ("rf_detr", "lw_detr"): _from_projector,
    ("yolos",): _from_patches,
}
"""Model types -> the place of their maps."""
