"""The draws of views: a pure function of a seed, an image's index and the number of its view.

A plan with a finite number of views serves every training of a search, so that the teacher's outputs are computed once
for each view. In an endless plan the number of a view is that of the epoch and the seed is the training's, so that no
picture comes twice and a resumed training still sees what the first would have seen.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace

import numpy as np

from autokd.data.views import Color, Mosaic, View
from autokd.files import text_digest

_FLIP_STREAM, _ZOOM_STREAM, _COLOR_STREAM, _MOSAIC_STREAM, _MIXTURE_STREAM, _SIZE_STREAM = range(101, 107)
"""Streams of random numbers, one a purpose: a change of one setting leaves the draws of the others as they were."""
_COLOR_SHARES = (0.4, 0.4, 0.7, 0.015)
"""Greatest changes of brightness, contrast, saturation and hue at 1: Ultralytics' and SSD's usual ranges."""
_MOSAIC_CENTER = (0.3, 0.7)
"""Range of a mosaic's center, so that every image has a part worth looking at."""
_MOSAIC_SCALE = (0.5, 1.0)
"""Range of the scale of a mosaic's images."""
_SIZE_MULTIPLE_PX = 32
"""Sides of a batch at another scale are multiples of this: strides up to 32 then divide them."""


@dataclass(frozen=True, slots=True)
class ViewPlan:
    """Every view of every image of a split. Equal plans give equal views, on every machine."""

    num_images: int
    """Images of the split."""
    num_views: int | None
    """Views of each image; None: endless, the number of a view being that of the epoch, from 1."""
    seed: int
    """Seed of all draws."""
    flip_probability: float = 0.5
    """Probability of a mirroring, from 0 to 1."""
    scale_range: tuple[float, float] = (1.0, 1.0)
    """Least and greatest scale; 1 to 1: no zoom."""
    color_jitter: float = 0.0
    """Extent of the changes of color, from 0 to 1."""
    mosaic_probability: float = 0.0
    """Probability that a view is a mosaic of four images."""
    mixup_probability: float = 0.0
    """Probability that a view is the mean of two images."""
    mix_epochs: int | None = None
    """Last epoch with mosaics and mixtures; None: the last of all."""
    batch_scale_range: tuple[float, float] = (1.0, 1.0)
    """Least and greatest scale of a batch; 1 to 1: every batch has the size of the network's input."""

    @property
    def is_endless(self) -> bool:
        """Whether every epoch shows new views."""
        return self.num_views is None

    def of_training(self, seed: int) -> ViewPlan:
        """Return the plan of one training: an endless plan draws by the training's seed, a finite one by its own.

        Args:
            seed: the training's seed.
        """
        return replace(self, seed=seed) if self.is_endless else self

    def view(self, index: int, number: int) -> View:
        """Return one view of one image.

        Each view is flipped with ``flip_probability``, and the flips of one image's views are spread evenly: with
        probability 0.5 its views alternate, so that two views of an image are never the same picture. The scale is
        log-uniform in ``scale_range``, the offset uniform.

        Args:
            index: position of the image in its split.
            number: number of the view, from 0.

        Raises:
            IndexError: if the plan has no such image or view.
        """
        if not (0 <= index < self.num_images and number >= 0 and (self.num_views is None or number < self.num_views)):
            raise IndexError(f"view {number} of image {index} is outside {self}")
        view = self._single(index, number)
        if self.mix_epochs is not None and number > self.mix_epochs:
            return view
        mosaic = self._mosaic(index, number)
        if mosaic is not None:
            view = replace(view, mosaic=mosaic)
        return replace(view, mixed_with=self._mixed_with(index, number))

    def batch_size_px(self, image_size_px: tuple[int, int], number: int, batch: int) -> tuple[int, int]:
        """Return (height, width) in pixels of one batch of an epoch: log-uniform in ``batch_scale_range``.

        Args:
            image_size_px: (height, width) of the network's input.
            number: number of the epoch.
            batch: number of the batch in its epoch.
        """
        low, high = self.batch_scale_range
        if low == high == 1:
            return image_size_px
        scale = low * (high / low) ** self._draws(_SIZE_STREAM, batch, number, 1)[0]
        height, width = (max(1, round(side * scale / _SIZE_MULTIPLE_PX)) * _SIZE_MULTIPLE_PX for side in image_size_px)
        return height, width

    def _single(self, index: int, number: int) -> View:
        """Return the view without other images."""
        # Views are points on a line, one probability apart, with a random start. A view is flipped if a whole number
        # lies between its point and the next: with this probability, and spread evenly over the views.
        start = np.random.default_rng([self.seed, _FLIP_STREAM, index]).random()
        probability = self.flip_probability
        flip = math.floor((number + 1) * probability + start) > math.floor(number * probability + start)
        color = self._color(index, number)
        low, high = self.scale_range
        if low == high == 1:
            return View(flip, color=color)
        scale_draw, y, x = self._draws(_ZOOM_STREAM, index, number, 3)
        return View(flip, float(low * (high / low) ** scale_draw), (float(y), float(x)), color)

    def _color(self, index: int, number: int) -> Color | None:
        if self.color_jitter == 0:
            return None
        draws = 2 * self._draws(_COLOR_STREAM, index, number, 4) - 1
        changes = [float(self.color_jitter * most * draw) for most, draw in zip(_COLOR_SHARES, draws)]
        return Color(1 + changes[0], 1 + changes[1], 1 + changes[2], changes[3])

    def _mosaic(self, index: int, number: int) -> Mosaic | None:
        if self.mosaic_probability == 0:
            return None
        rng = np.random.default_rng([self.seed, _MOSAIC_STREAM, index, number])
        if rng.random() >= self.mosaic_probability:
            return None
        low, high = _MOSAIC_CENTER
        y, x = low + (high - low) * rng.random(2)
        members = [index, *(int(other) for other in rng.integers(self.num_images, size=3))]
        return Mosaic((float(y), float(x)), tuple((member, self._in_mosaic(member, number, rng)) for member in members))

    def _in_mosaic(self, index: int, number: int, rng: np.random.Generator) -> View:
        """Return the view of a mosaic's image, whose scale is the mosaic's and not that of ``scale_range``."""
        low, high = _MOSAIC_SCALE
        single = self._single(index, number)
        return View(single.flip, float(low + (high - low) * rng.random()), (0.0, 0.0), single.color)

    def _mixed_with(self, index: int, number: int) -> tuple[int, View] | None:
        if self.mixup_probability == 0:
            return None
        rng = np.random.default_rng([self.seed, _MIXTURE_STREAM, index, number])
        if rng.random() >= self.mixup_probability:
            return None
        other = int(rng.integers(self.num_images))
        return other, self._single(other, number)

    def _draws(self, stream: int, index: int, number: int, count: int) -> np.ndarray:
        return np.random.default_rng([self.seed, stream, index, number]).random(count)

    @property
    def digest(self) -> str:
        """16 hexadecimal digits, equal for equal plans; for content-addressed caches."""
        # Settings at their defaults are left out of what came later than the first five: digests outlive new settings.
        later = {field.name: field.default for field in fields(self)[5:]}
        found = {name: value for name, value in asdict(self).items() if name not in later or value != later[name]}
        return text_digest(repr(sorted(found.items())))


def plan_views(
    num_images: int,
    num_views: int | None,
    seed: int,
    flip_probability: float = 0.5,
    scale_range: tuple[float, float] = (1.0, 1.0),
    *,
    color_jitter: float = 0.0,
    mosaic_probability: float = 0.0,
    mixup_probability: float = 0.0,
    mix_epochs: int | None = None,
    batch_scale_range: tuple[float, float] = (1.0, 1.0),
) -> ViewPlan:
    """Plan the views of every image of a split.

    Args:
        num_images: images of the split.
        num_views: views of each image, at least 1; None: endless.
        seed: seed of all draws.
        flip_probability: probability of a mirroring, from 0 to 1.
        scale_range: least and greatest scale, above 0.
        color_jitter: extent of the changes of color, from 0 to 1.
        mosaic_probability: probability of a mosaic of four images, from 0 to 1.
        mixup_probability: probability of the mean of two images, from 0 to 1.
        mix_epochs: last epoch with mosaics and mixtures; None: the last of all.
        batch_scale_range: least and greatest scale of a batch, above 0.

    Returns:
        The plan; ``ViewPlan.view`` draws each view.
    """
    assert num_views is None or num_views >= 1
    assert 0 <= flip_probability <= 1
    assert 0 < scale_range[0] <= scale_range[1]
    assert 0 < batch_scale_range[0] <= batch_scale_range[1]
    return ViewPlan(
        num_images,
        num_views,
        seed,
        float(flip_probability),
        (float(scale_range[0]), float(scale_range[1])),
        float(color_jitter),
        float(mosaic_probability),
        float(mixup_probability),
        mix_epochs,
        (float(batch_scale_range[0]), float(batch_scale_range[1])),
    )
