"""Products of channels, in float32 whatever the context, on a CPU by the way that is quickest.

torch's products of float32 are MKL's there, which takes half the width of another maker's vector units; oneDNN, which
torch has for convolutions, takes all of it. So a product is asked for as a 1x1 convolution: on the machine of
experiments/distiller_speed at twice the speed. On other devices, and in other formats, it is torch's own product.

A backward that is called under autocast would take torch's products in half precision, where gradients of large maps
overflow; these stay in the forward's precision.

Legend: S samples, C and D and K channels, N cells, R rows.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

_LEAST_WORK = 2**20
"""Multiplications from which the call of a convolution costs nothing beside its work."""
_BLOCK_ROWS = 64
"""Rows of a symmetric product that are computed together, up to the diagonal: 5/8 of the work for 256."""


def mixed(weight: Tensor, x_SCN: Tensor, bias_K: Tensor | None = None) -> Tensor:
    """Return weight x + bias of each sample: a 1x1 convolution.

    Args:
        weight: (K, C), the same for all samples, or (S, K, C).
        x_SCN: any maps.
        bias_K: added to each channel; None: nothing.

    Returns:
        (S, K, N).
    """
    return cast(Tensor, _Mixed.apply(weight, x_SCN, bias_K))  # type: ignore[no-untyped-call]


def related(first_SCN: Tensor, second_SDN: Tensor) -> Tensor:
    """Return the inner products of each two channels of each sample, (S, C, D)."""
    return cast(Tensor, _Related.apply(first_SCN, second_SDN))  # type: ignore[no-untyped-call]


def self_related(x: Tensor) -> Tensor:
    """Return x x' over the last two axes, exactly symmetric; x has two or three axes.

    Its gradient is one product, (G + G') x, where autograd takes two.
    """
    return cast(Tensor, _SelfRelated.apply(x))  # type: ignore[no-untyped-call]


class _Mixed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, x_SCN: Tensor, bias_K: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight, x_SCN)
        return _mix(weight, x_SCN, bias_K)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        weight, x_SCN = ctx.saved_tensors
        of_weight, of_x = None, None
        of_bias = gradients[0].sum((0, 2)) if ctx.needs_input_grad[2] else None
        with torch.autocast(x_SCN.device.type, enabled=False):
            if ctx.needs_input_grad[0]:
                of_weight = _relate(gradients[0], x_SCN)
                of_weight = of_weight.sum(0) if weight.ndim == 2 else of_weight
            if ctx.needs_input_grad[1]:
                of_x = _mix(weight.mT, gradients[0])
        return of_weight, of_x, of_bias


class _Related(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, first_SCN: Tensor, second_SDN: Tensor) -> Tensor:
        ctx.save_for_backward(first_SCN, second_SDN)
        return _relate(first_SCN, second_SDN)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        first_SCN, second_SDN = ctx.saved_tensors
        with torch.autocast(first_SCN.device.type, enabled=False):
            return _mix(gradients[0], second_SDN), _mix(gradients[0].mT, first_SCN)


class _SelfRelated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        if not _is_quick(x, x.shape[-2] ** 2 * x.shape[-1] if x.numel() else 0):
            return x @ x.mT
        return torch.stack([_symmetric(x_RN) for x_RN in x.view(-1, *x.shape[-2:])]).view(*x.shape[:-1], x.shape[-2])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        both = gradients[0] + gradients[0].mT
        with torch.autocast(x.device.type, enabled=False):
            return _mix(both, x) if x.ndim == 3 else both @ x


def _mix(weight: Tensor, x_SCN: Tensor, bias_K: Tensor | None = None) -> Tensor:
    if not _is_quick(x_SCN, weight.shape[-2] * x_SCN[0].numel() if len(x_SCN) else 0):
        found = weight @ x_SCN
        return found if bias_K is None else found + bias_K[:, None]
    if weight.ndim == 3:
        return torch.cat([_convolved(x_CN[None], w_KC, bias_K) for w_KC, x_CN in zip(weight, x_SCN)])
    return _convolved(x_SCN, weight, bias_K)


def _convolved(x_SCN: Tensor, weight_KC: Tensor, bias_K: Tensor | None) -> Tensor:
    return _by_onednn(x_SCN.contiguous()[..., None], weight_KC, bias_K)[..., 0]


def _relate(first_SCN: Tensor, second_SDN: Tensor) -> Tensor:
    if not _is_quick(first_SCN, second_SDN.shape[1] * first_SCN[0].numel() if len(first_SCN) else 0):
        return first_SCN @ second_SDN.mT
    return torch.stack([_row_products(first, second) for first, second in zip(first_SCN, second_SDN)])


def _symmetric(x_RN: Tensor) -> Tensor:
    """(R, R), by blocks of rows from the diagonal on; below it, the transpose."""
    product_RR = x_RN.new_empty(len(x_RN), len(x_RN))
    for start in range(0, len(x_RN), _BLOCK_ROWS):
        block = _row_products(x_RN[start:], x_RN[start : start + _BLOCK_ROWS])
        product_RR[start:, start : start + _BLOCK_ROWS] = block
        product_RR[start : start + _BLOCK_ROWS, start:] = block.T
    return product_RR


def _row_products(first_RN: Tensor, second_KN: Tensor) -> Tensor:
    """(R, K): rows of numbers as the cells of a map whose channels lie side by side in memory."""
    map_1NR1 = first_RN.contiguous()[None, :, None].permute(0, 3, 1, 2)
    return _by_onednn(map_1NR1, second_KN)[0, :, :, 0].T


def _by_onednn(x_SCHW: Tensor, weight_KC: Tensor, bias_K: Tensor | None = None) -> Tensor:
    """A 1x1 convolution; torch's own would be MKL's product, for few samples on one thread."""
    weight_KC11 = weight_KC.contiguous()[:, :, None, None]
    return torch.mkldnn_convolution(x_SCHW, weight_KC11, bias_K, (0, 0), (1, 1), (1, 1), 1)


def _is_quick(x: Tensor, num_multiplications: int) -> bool:
    """Whether oneDNN takes this tensor, and has enough to do."""
    if x.device.type != "cpu" or x.dtype != torch.float32 or num_multiplications < _LEAST_WORK:
        return False
    return torch.backends.mkldnn.is_available() and bool(torch.backends.mkldnn.enabled)
