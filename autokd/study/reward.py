"""What a trial is worth: each metric against "none" under the same random numbers, standardised, and added.

Auto-KD (ICCV 2023) adds the student's test loss and the representation gap. Their units differ, so each gain is
divided by its spread over a panel of trials: "none" (gain 0) and the first few candidates. The scales are
fixed from then on, so that every value of a study means the same.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from autokd.outcomes import Outcome

SIGNS: Mapping[str, float] = {"val_loss": -1.0, "cka": 1.0, "ap": 1.0, "ap_50": 1.0, "ap_worst_class": 1.0}
"""Whether more of a metric is better."""

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

    def is_known(self, metrics: Metrics) -> bool:
        """Whether every part was measured and is finite; it need not be after epochs before the last."""
        return all(math.isfinite(metrics.get(part, math.nan)) for part in self.parts)

    def gains(self, metrics: Metrics, epoch: int) -> dict[str, float]:
        """Signed differences to "none" at the same epoch; above 0 is better."""
        none = self.reference[epoch]
        return {part: SIGNS[part] * (metrics[part] - none[part]) for part in self.parts}

    def value(self, metrics: Metrics, epoch: int) -> float:
        """Sum of the standardised gains. Needs ``scales``."""
        assert self.scales is not None, "the scales are known only after the panel"
        scales = self.scales
        return math.fsum(gain / scales[part] for part, gain in self.gains(metrics, epoch).items())

    def calibrated(self, panel: Iterable[Mapping[str, float]]) -> Reward:
        """Return the reward with scales from the gains of a panel of trials, "none" added."""
        rows: Sequence[Mapping[str, float]] = [dict.fromkeys(self.parts, 0.0), *panel]
        scales = {part: _spread([row[part] for row in rows]) for part in self.parts}
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
