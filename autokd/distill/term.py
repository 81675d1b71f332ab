"""A term of a distiller: source, transformations and distance, without the weight."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from autokd.distill.feature_pair import FeaturePair
from autokd.distill.operators import Distance, Source, Transform
from autokd.distill.term_inputs import TermInputs
from autokd.distill.weighting.level_factors import LevelFactors
from autokd.distill.weighting.rounding import least_value, rounding_of, sides_differ
from autokd.spec import Weight


class Term(nn.Module):
    """Source -> transformations -> distance, summed over the source's feature pairs. The distiller applies the weight.

    Terms that begin alike hold the same modules, and their common beginning is computed once in a step.
    """

    def __init__(
        self,
        source: Source,
        transforms: Sequence[Transform],
        distance: Distance,
        weight: Weight,
        taps: frozenset[str] = frozenset({"fpn"}),
        num_pieces: int = 1,
        zero_at_equality: bool = True,
    ) -> None:
        """Join operators to a term.

        Args:
            source, transforms, distance: the operators.
            weight: the term's weight.
            taps: the taps that the operators read.
            num_pieces: feature pairs that the source gives, for weights whose level weighting is not "equal".
            zero_at_equality: whether the term is 0 where both sides are equal.
        """
        super().__init__()
        self.taps = taps
        self.source = source
        self.transforms = nn.ModuleList(transforms)
        self.distance = distance
        self.weight = weight
        self.zero_at_equality = zero_at_equality
        self.layers = None if weight.level_weighting == "equal" else LevelFactors(weight.level_weighting, num_pieces)

    def forward(self, inputs: TermInputs) -> Tensor:
        """Return the value before the weight, a scalar."""
        given, pieces = self._pieces(inputs)
        values = [self.distance(piece, inputs) for piece in pieces]
        if self.layers is not None:
            if inputs.measures:
                taps = [tap for tap in inputs.student_maps.values() if tap.requires_grad]
                self.layers.measure(given, values, taps)
            values = [value * factor for value, factor in zip(values, self.layers.factors_P, strict=True)]
        first, *rest = values
        return sum(rest, start=first)

    def differs(self, inputs: TermInputs, value: Tensor) -> Tensor:
        """Return whether ``value``, which ``forward`` gave for ``inputs``, is of more than rounding: a bool scalar.

        A term that is not 0 at equality cannot be told so: it counts as one that differs.
        """
        rounding = rounding_of(list(inputs.student_maps.values()))
        differs = torch.ones((), dtype=torch.bool, device=value.device)
        if self.zero_at_equality:
            differs = sides_differ(self._pieces(inputs)[1], rounding)
            if self.distance.is_scale_free:
                differs = differs & (value.detach() > least_value(rounding))
        return differs

    def _pieces(self, inputs: TermInputs) -> tuple[tuple[FeaturePair, ...], tuple[FeaturePair, ...]]:
        """Return the feature pairs as the source gives them and as they reach the distance; made once in a step."""
        # The key is the chain of modules itself: terms that begin alike hold the same ones.
        key: tuple[Hashable, ...] = ("operators", self.source)
        given = pieces = inputs.shared(key, lambda: self.source.pairs_of(inputs))
        for transform in self.transforms:
            key = (*key, transform)
            pieces = inputs.shared(key, partial(_changed, pieces, transform, inputs))
        return given, pieces


def _changed(pieces: tuple[FeaturePair, ...], transform: nn.Module, inputs: TermInputs) -> tuple[FeaturePair, ...]:
    return tuple(transform(piece, inputs) for piece in pieces)
