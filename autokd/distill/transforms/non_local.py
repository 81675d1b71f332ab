"""The non-local block of FBKD: each cell plus a learned mixture of all cells of its sample.

Legend: S samples, C channels, D channels inside the block, E = 3 D, H x W cells, N = H * W.
"""

from __future__ import annotations

from torch import Tensor, nn

from autokd.distill.feature_pair import FeaturePair
from autokd.distill.operators import BuildContext, Transform
from autokd.distill.products import mixed, related
from autokd.distill.term_inputs import TermInputs


class NonLocal(Transform):
    """x_i + W 1/N sum_j <theta x_i, phi x_j> g x_j, with learned maps of its own for each level and each side.

    Layout map -> map. N and the sum are over the cells that count. The teacher's block learns too, but no gradient
    reaches the teacher. W starts at 0, so that the step starts as the identity. The pairwise function is the dot
    product: the sum over j is then a D x D matrix that all cells share, so that the cost is linear in the cells and
    nothing needs to be pooled. Left out of the released code: the batch normalization of W, which would be another
    loss for another batch size, and the 1x1 convolution behind the student's block, which W contains.
    FBKD, ICLR 2021, section 3 (non-local distillation); Non-local Neural Networks, arXiv:1711.07971, eqs. 1, 4 and 6.
    """

    def __init__(self, context: BuildContext, reduction: int) -> None:
        super().__init__(context)
        channels = [pair.channels for pair in context.pairs]
        self.student = nn.ModuleList(NonLocalBlock(number, max(number // reduction, 1)) for number in channels)
        self.teacher = nn.ModuleList(NonLocalBlock(number, max(number // reduction, 1)) for number in channels)

    def forward(self, features: FeaturePair, inputs: TermInputs) -> FeaturePair:
        members, level = features.members_SHW, features.level
        return features.with_maps(
            self.student[level](features.student_SCHW, members), self.teacher[level](features.teacher_SCHW, members)
        )


class NonLocalBlock(nn.Module):
    """x + W y, with y_i = 1/N sum_j <theta x_i, phi x_j> g x_j."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.embed = nn.Conv1d(channels, 3 * inner, kernel_size=1)
        """theta, phi and g, one after another."""
        self.out = nn.Conv1d(inner, channels, kernel_size=1)
        nn.init.normal_(self.embed.weight, std=channels**-0.5)
        # W starts at 0, so that the block starts as the identity; variance 1 / C keeps that of what passes the others.
        for parameter in (self.embed.bias, self.out.weight, self.out.bias):
            assert parameter is not None
            nn.init.zeros_(parameter)

    def forward(self, x_SCHW: Tensor, members_SHW: Tensor | None) -> Tensor:
        embedded_SEN = mixed(self.embed.weight[..., 0], x_SCHW.flatten(2), self.embed.bias)
        theta_SDN, phi_SDN, g_SDN = embedded_SEN.chunk(3, dim=1)
        count: Tensor | int = phi_SDN.shape[2]
        if members_SHW is not None:
            members_S1N = members_SHW.flatten(1)[:, None].to(x_SCHW.dtype)
            phi_SDN = phi_SDN * members_S1N
            count = members_S1N.sum(2, keepdim=True).clamp_min(1)
        # (g phi') theta and not g (phi' theta): D x D in place of N x N numbers, the same by associativity.
        seen_SDD = related(g_SDN, phi_SDN) / count
        mixed_SCD = self.out.weight[..., 0] @ seen_SDD
        return x_SCHW + mixed(mixed_SCD, theta_SDN, self.out.bias).view_as(x_SCHW)
