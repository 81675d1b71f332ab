"""What a trial is worth: each metric against "none" under the same random numbers, standardised, and added.

Auto-KD (ICCV 2023) adds the student's test loss and the representation gap. Their units differ, so each gain is
divided by its spread over a panel of trials: "none" (gain 0) and the first few candidates. The scales are
fixed from then on, so that every value of a study means the same.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from autokd.metrics import CKA, VAL_LOSS, part_of
from autokd.outcomes import Outcome

EACH_LOSS = "val_loss_parts"
"""Stands for every part of the validation loss, each with a scale of its own: the sum lets the largest speak alone."""
SIGNS: Mapping[str, float] = {VAL_LOSS: -1.0, CKA: 1.0, "ap": 1.0, "ap_50": 1.0, "ap_worst_class": 1.0}
"""Whether more of a metric is better; of a part of the loss less is."""

Metrics = Mapping[str, float]


@dataclass(frozen=True)
class Reward:
    """``reference``: metrics of "none" after each epoch. ``scales``: spread of each gain; None until known."""

    parts: tuple[str, ...]
    reference: Mapping[int, Metrics]
    scales: Mapping[str, float] | None = None

    @property
    def num_epochs(self) -> int:
        """Reports of a whole proxy training, as "none" gave them; the last may stand for a part of an epoch."""
        return max(self.reference)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The parts by the names of what is measured; a loss without parts is its own."""
        if EACH_LOSS not in self.parts:
            return self.parts
        losses = sorted(name for name in self.reference[self.num_epochs] if part_of(name, VAL_LOSS) is not None)
        expanded = ((losses or [VAL_LOSS]) if part == EACH_LOSS else [part] for part in self.parts)
        return tuple(dict.fromkeys(itertools.chain.from_iterable(expanded)))

    def is_known(self, metrics: Metrics) -> bool:
        """Whether every part was measured and is finite; it need not be after epochs before the last."""
        return all(math.isfinite(metrics.get(name, math.nan)) for name in self.metrics)

    def gains(self, metrics: Metrics, epoch: int) -> dict[str, float]:
        """Signed differences to "none" at the same epoch; above 0 is better."""
        none = self.reference[epoch]
        return {name: SIGNS.get(name, -1.0) * (metrics[name] - none[name]) for name in self.metrics}

    def value(self, metrics: Metrics, epoch: int) -> float:
        """Sum of the standardised gains. Needs ``scales``."""
        assert self.scales is not None, "the scales are known only after the panel"
        scales = self.scales
        return math.fsum(gain / scales[name] for name, gain in self.gains(metrics, epoch).items())

    def calibrated(self, panel: Iterable[Mapping[str, float]]) -> Reward:
        """Return the reward with scales from the gains of a panel of trials, "none" added."""
        rows: Sequence[Mapping[str, float]] = [dict.fromkeys(self.metrics, 0.0), *panel]
        scales = {name: _spread([row[name] for row in rows]) for name in self.metrics}
        return Reward(self.parts, self.reference, scales)


def reference_curve(outcome: Outcome) -> dict[int, Metrics]:
    """Metrics of an outcome by epoch."""
    return {report.epoch: report.metrics for report in outcome.reports}


def _spread(values: Sequence[float]) -> float:
    """Standard deviation (n - 1); 1 where it vanishes, so that a part without differences adds nothing."""
    if len(values) < 2:
        return 1.0
    deviation = statistics.stdev(values)
    return deviation if deviation > 1e-12 else 1.0
