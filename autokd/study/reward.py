"""The reward of a trial: gains over "none" in the metrics of ``proxy.reward``, each divided by its spread, added.

Each gain is the difference to the training without distillation of the same seed and epoch, signed so that above 0 is
better. Auto-KD (ICCV 2023) adds the student's test loss and the representation gap as they are, although their units
differ. Here each gain is divided by its standard deviation over the calibration trials: "none" (gain 0) and the first
candidates. The scales are fixed from then on, so that every value of a study means the same.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from autokd.jobs import Outcome
from autokd.metrics import CKA, VAL_LOSS, part_of

EACH_LOSS = "val_loss_parts"
"""Name in ``proxy.reward`` for every part of the validation loss, each with its own scale. In the sum of the parts the
largest would outweigh all others."""
SIGNS: Mapping[str, float] = {VAL_LOSS: -1.0, CKA: 1.0, "ap": 1.0, "ap_50": 1.0, "ap_worst_class": 1.0}
"""Sign by which a greater value of a metric is better; for a part of the loss it is -1."""

Metrics = Mapping[str, float]


@dataclass(frozen=True)
class Reward:
    """Reward against the training without distillation.

    Args:
        parts: metrics of ``proxy.reward``.
        reference: metrics of "none" after each epoch, from 1.
        scales: spread of each gain, above 0; None until the calibration trials have ended.
    """

    parts: tuple[str, ...]
    reference: Mapping[int, Metrics]
    scales: Mapping[str, float] | None = None

    @property
    def num_epochs(self) -> int:
        """Number of reports of a whole proxy training; the last may be of a part of an epoch."""
        return max(self.reference)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that the parts read; EACH_LOSS is expanded, a loss without parts counts as one."""
        if EACH_LOSS not in self.parts:
            return self.parts
        losses = sorted(name for name in self.reference[self.num_epochs] if part_of(name, VAL_LOSS) is not None)
        expanded = ((losses or [VAL_LOSS]) if part == EACH_LOSS else [part] for part in self.parts)
        return tuple(dict.fromkeys(itertools.chain.from_iterable(expanded)))

    def is_known(self, metrics: Metrics) -> bool:
        """Return whether every metric was measured and is finite.

        Some metrics are measured after the last epoch only.

        Args:
            metrics: metrics by name, as a report holds them.
        """
        return all(math.isfinite(metrics.get(name, math.nan)) for name in self.metrics)

    def gains(self, metrics: Metrics, epoch: int) -> dict[str, float]:
        """Return the signed differences to "none" by metric; above 0 is better.

        Args:
            metrics: metrics by name; all of ``self.metrics`` must be among them.
            epoch: epoch after which they were measured, from 1.
        """
        none = self.reference[epoch]
        return {name: SIGNS.get(name, -1.0) * (metrics[name] - none[name]) for name in self.metrics}

    def value(self, metrics: Metrics, epoch: int) -> float:
        """Return the reward: the sum of the gains, each divided by its scale. The scales must be known.

        Args:
            metrics: metrics by name; all of ``self.metrics`` must be among them.
            epoch: epoch after which they were measured, from 1.
        """
        assert self.scales is not None, "the scales are known only after the calibration trials"
        scales = self.scales
        return math.fsum(gain / scales[name] for name, gain in self.gains(metrics, epoch).items())

    def calibrated(self, gains: Iterable[Mapping[str, float]]) -> Reward:
        """Return the reward with scales.

        Args:
            gains: gains of each calibration trial; those of "none", all 0, are added.
        """
        rows: Sequence[Mapping[str, float]] = [dict.fromkeys(self.metrics, 0.0), *gains]
        scales = {name: _spread([row[name] for row in rows]) for name in self.metrics}
        return Reward(self.parts, self.reference, scales)


def reference_curve(outcome: Outcome) -> dict[int, Metrics]:
    """Return the metrics of an outcome by epoch.

    Args:
        outcome: outcome of a proxy training.
    """
    return {report.epoch: report.metrics for report in outcome.reports}


def _spread(values: Sequence[float]) -> float:
    """Return the sample standard deviation (n - 1), or 1 if it vanishes: a metric without differences adds 0 then."""
    if len(values) < 2:
        return 1.0
    deviation = statistics.stdev(values)
    # Rounding leaves a tiny deviation of equal values; dividing by it would make noise the whole reward.
    return deviation if deviation > 1e-12 else 1.0
