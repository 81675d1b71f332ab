"""RoIAlign, deformable convolution and attention through mmcv.ops, beside loops in NumPy; gradients by differences.

``gradcheck`` compares a backward function with finite differences of the forward one, whose values the loops check.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision.ops
from torch.autograd import gradcheck


def bilinear(map_HW: np.ndarray, y: float, x: float) -> float:
    """The map at (y, x) between cell centers at whole numbers; zero outside."""
    total = 0.0
    for row in (int(np.floor(y)), int(np.floor(y)) + 1):
        for column in (int(np.floor(x)), int(np.floor(x)) + 1):
            if 0 <= row < map_HW.shape[0] and 0 <= column < map_HW.shape[1]:
                total += map_HW[row, column] * (1 - abs(y - row)) * (1 - abs(x - column))
    return total


def uniform(generator: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=generator, dtype=torch.float64)


ROIS = torch.tensor([[0, 2.0, 2.0, 9.0, 7.0], [1, 1.5, 3.0, 6.0, 10.0], [1, 4.0, 4.0, 12.5, 11.0]], dtype=torch.float64)


def test_roi_align_averages_bilinear_samples(mmcv_ops, generator):
    map_BCHW = uniform(generator, 2, 2, 8, 8)
    pooled = mmcv_ops.roi_align(map_BCHW, ROIS, (2, 3), 0.5, 2, "avg", True).numpy()
    assert pooled.shape == (3, 2, 2, 3)
    for n, (image, *box) in enumerate(ROIS.tolist()):
        left, top, right, bottom = (0.5 * edge - 0.5 for edge in box)
        height, width = (bottom - top) / 2, (right - left) / 3
        for c, i, j in np.ndindex(2, 2, 3):
            samples = [
                bilinear(map_BCHW[int(image), c].numpy(), top + (i + u) * height, left + (j + v) * width)
                for u in (0.25, 0.75)
                for v in (0.25, 0.75)
            ]
            assert pooled[n, c, i, j] == pytest.approx(np.mean(samples), abs=1e-12)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_roi_align_has_torchvisions_values_and_gradients(mmcv_ops, generator, sampling_ratio, aligned):
    map_BCHW = uniform(generator, 2, 3, 8, 8)
    weights = uniform(generator, 3, 3, 4, 4)
    results = []
    for operator in (
        lambda x: mmcv_ops.roi_align(x, ROIS, 4, 0.5, sampling_ratio, "avg", aligned),
        lambda x: torchvision.ops.roi_align(x, ROIS, 4, 0.5, sampling_ratio, aligned),
    ):
        leaf = map_BCHW.clone().requires_grad_()
        pooled = operator(leaf)
        (pooled * weights).sum().backward()
        results.append((pooled.detach(), leaf.grad))
    (ours, our_gradient), (theirs, their_gradient) = results
    assert torch.allclose(ours, theirs, atol=1e-12)
    assert torch.allclose(our_gradient, their_gradient, atol=1e-12)
    assert float(their_gradient.abs().sum()) > 1


def test_gradient_of_roi_align_is_that_of_differences(mmcv_ops, generator):
    map_BCHW = uniform(generator, 2, 1, 6, 6).requires_grad_()
    assert gradcheck(lambda x: mmcv_ops.roi_align(x, ROIS, 2, 0.5, 0, "avg", True), (map_BCHW,))


def test_roi_align_layer_of_no_regions_gives_and_takes_nothing(mmcv_ops):
    map_BCHW = torch.rand(1, 2, 4, 4, requires_grad=True)
    pooled = mmcv_ops.RoIAlign(2, 0.5)(map_BCHW, torch.zeros(0, 5))
    pooled.sum().backward()
    assert pooled.shape == (0, 2, 2, 2)
    assert not map_BCHW.grad.any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_roi_align_keeps_the_format_of_mixed_precision(mmcv_ops, generator, dtype):
    map_BCHW = uniform(generator, 2, 1, 8, 8).to(dtype).requires_grad_()
    pooled = mmcv_ops.roi_align(map_BCHW, ROIS.to(dtype), 2, 0.5, 2, "avg", True)
    pooled.sum().backward()
    exact = torchvision.ops.roi_align(map_BCHW.detach().double(), ROIS, 2, 0.5, 2, True)
    assert pooled.dtype == map_BCHW.grad.dtype == dtype
    assert torch.allclose(pooled.double(), exact, atol=0.01)


# -- deformable convolution ------------------------------------------------------------------------------------------

SHAPES = {
    # in channels, out channels, stride, padding, dilation, groups, offset groups
    "plain": (2, 3, 1, 1, 1, 1, 1),
    "strided": (2, 2, 2, 1, 1, 1, 1),
    "dilated": (2, 2, 1, 2, 2, 1, 1),
    "grouped": (4, 2, 1, 1, 1, 2, 2),
}


def deformed(x_CHW, offset, weight, mask, stride, padding, dilation, groups, offset_groups):
    """Sum over kernel cells of weight * mask * input at the cell plus its offset: the definition, cell by cell."""
    num_out, in_per_group, kernel_h, kernel_w = weight.shape
    channels, (_, height, width) = len(x_CHW), offset.shape
    out = np.zeros((num_out, height, width))
    for o, i, j in np.ndindex(num_out, height, width):
        for within, ki, kj in np.ndindex(in_per_group, kernel_h, kernel_w):
            c = (o // (num_out // groups)) * in_per_group + within
            cell = (c // (channels // offset_groups)) * kernel_h * kernel_w + ki * kernel_w + kj
            y = i * stride - padding + ki * dilation + offset[2 * cell, i, j]
            x = j * stride - padding + kj * dilation + offset[2 * cell + 1, i, j]
            factor = 1.0 if mask is None else mask[cell, i, j]
            out[o, i, j] += weight[o, within, ki, kj] * factor * bilinear(x_CHW[c], y, x)
    return out


def operands(name: str, generator: torch.Generator):
    in_channels, out_channels, stride, padding, dilation, groups, offset_groups = SHAPES[name]
    x = uniform(generator, 2, in_channels, 4, 5) - 0.5
    height = (4 + 2 * padding - dilation * 2 - 1) // stride + 1
    width = (5 + 2 * padding - dilation * 2 - 1) // stride + 1
    # Between 0.1 and 0.9 of a cell: differences must not step over a cell's edge, where the samples have a kink.
    offset = 0.1 + 0.8 * uniform(generator, 2, offset_groups * 18, height, width)
    offset += torch.randint(-1, 2, offset.shape, generator=generator)
    mask = uniform(generator, 2, offset_groups * 9, height, width)
    weight = uniform(generator, out_channels, in_channels // groups, 3, 3) - 0.5
    return x, offset, mask, weight, SHAPES[name][2:]


@pytest.mark.parametrize("name", SHAPES)
def test_deformable_convolution_equals_its_definition(mmcv_ops, generator, name):
    x, offset, _, weight, window = operands(name, generator)
    found = mmcv_ops.deform_conv2d(x, offset, weight, *window)
    for image in range(2):
        expected = deformed(x[image].numpy(), offset[image].numpy(), weight.numpy(), None, *window)
        assert found[image].numpy() == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("name", SHAPES)
def test_modulated_deformable_convolution_equals_its_definition(mmcv_ops, generator, name):
    x, offset, mask, weight, window = operands(name, generator)
    bias = torch.arange(1.0, len(weight) + 1, dtype=torch.float64)
    found = mmcv_ops.modulated_deform_conv2d(x, offset, mask, weight, bias, *window)
    for image in range(2):
        arguments = (x[image], offset[image], weight, mask[image])
        expected = deformed(*(a.numpy() for a in arguments), *window) + bias.numpy()[:, None, None]
        assert found[image].numpy() == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("name", ["strided", "grouped"])
def test_gradients_of_deformable_convolution_are_those_of_differences(mmcv_ops, generator, name):
    x, offset, _, weight, window = operands(name, generator)
    leaves = [leaf[:1].clone() if leaf is not weight else leaf for leaf in (x, offset, weight)]
    leaves = [leaf.requires_grad_() for leaf in leaves]
    assert gradcheck(lambda *given: mmcv_ops.deform_conv2d(*given, *window), leaves)


@pytest.mark.parametrize("name", ["strided", "grouped"])
def test_gradients_of_modulated_deformable_convolution_are_those_of_differences(mmcv_ops, generator, name):
    x, offset, mask, weight, window = operands(name, generator)
    bias = uniform(generator, len(weight))
    leaves = [x[:1].clone(), offset[:1].clone(), mask[:1].clone(), weight, bias]
    leaves = [leaf.requires_grad_() for leaf in leaves]
    assert gradcheck(lambda *given: mmcv_ops.modulated_deform_conv2d(*given, *window), leaves)


def test_modulated_kernels_read_the_first_numbers_of_offsets_of_a_finer_map(mmcv_ops, generator):
    # What DyHead asks of mmcv's kernels: they do not look at the offsets' own height and width.
    x, weight = uniform(generator, 1, 2, 4, 5), uniform(generator, 3, 2, 3, 3)
    offset, mask = 0.1 + 0.8 * uniform(generator, 1, 18, 8, 10), uniform(generator, 1, 9, 8, 10)
    read_offset = offset.numpy().ravel()[: 18 * 4 * 5].reshape(18, 4, 5)
    read_mask = mask.numpy().ravel()[: 9 * 4 * 5].reshape(9, 4, 5)
    expected = deformed(x[0].numpy(), read_offset, weight.numpy(), read_mask, 1, 1, 1, 1, 1)
    offset.requires_grad_()
    found = mmcv_ops.modulated_deform_conv2d(x, offset, mask, weight, None, 1, 1, 1, 1, 1)
    found.sum().backward()
    assert found[0].detach().numpy() == pytest.approx(expected, abs=1e-10)
    assert offset.grad.shape == offset.shape
    assert not offset.grad.flatten()[18 * 4 * 5 :].any()
    assert offset.grad.flatten()[: 18 * 4 * 5].any()


def test_deformable_layers_without_offsets_are_plain_convolutions(mmcv_ops, generator):
    x = uniform(generator, 2, 4, 6, 6).float()
    for layer, expected_factor in (
        (mmcv_ops.DeformConv2dPack(4, 3, 3, padding=1), 1.0),
        # Its masks are sigmoids of zero to begin with.
        (mmcv_ops.ModulatedDeformConv2dPack(4, 3, 3, padding=1, bias=False), 0.5),
    ):
        plain = torch.nn.functional.conv2d(x, layer.weight, padding=1)
        assert torch.allclose(layer(x), expected_factor * plain, atol=1e-5)


# -- deformable attention --------------------------------------------------------------------------------------------

LEVELS = [(3, 4), (2, 2)]
"""Rows and columns of two maps."""


def attention_operands(generator: torch.Generator):
    """1 image, 16 cells, 2 heads of 2 channels, 3 queries, 2 maps, 2 points."""
    value = uniform(generator, 1, 16, 2, 2)
    locations = uniform(generator, 1, 3, 2, 2, 2, 2)
    weights = uniform(generator, 1, 3, 2, 2, 2)
    shapes = torch.tensor(LEVELS)
    starts = torch.tensor([0, 12])
    return value, shapes, starts, locations, weights


def test_deformable_attention_sums_weighted_samples_of_all_maps(mmcv_ops, generator):
    from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction

    value, shapes, starts, locations, weights = attention_operands(generator)
    found = MultiScaleDeformableAttnFunction.apply(value, shapes, starts, locations, weights, 64)
    assert found.shape == (1, 3, 4)
    for query, head, channel in np.ndindex(3, 2, 2):
        expected = 0.0
        for level, point in np.ndindex(2, 2):
            rows, columns = LEVELS[level]
            cells = value[0, starts[level] : starts[level] + rows * columns, head, channel]
            x, y = locations[0, query, head, level, point].tolist()
            sample = bilinear(cells.reshape(rows, columns).numpy(), y * rows - 0.5, x * columns - 0.5)
            expected += float(weights[0, query, head, level, point]) * sample
        assert float(found[0, query, 2 * head + channel]) == pytest.approx(expected, abs=1e-12)


def test_gradients_of_deformable_attention_are_those_of_differences(mmcv_ops, generator):
    from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction

    value, shapes, starts, locations, weights = attention_operands(generator)
    leaves = [leaf.requires_grad_() for leaf in (value, locations, weights)]
    assert gradcheck(
        lambda v, x, w: MultiScaleDeformableAttnFunction.apply(v, shapes, starts, x, w, 64), leaves, atol=1e-6
    )
