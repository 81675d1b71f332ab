"""Several teachers of one student: a distiller for each, and a loss that is their weighted mean.

    loss = sum over teachers k of share_k * distiller_k(student, teacher_k),   shares > 0 that sum to 1

Since shares sum to 1, a gradient ratio means the same for one teacher and for five. Shares are not trained:

    equal      1 / number of teachers
    gap        in proportion to the representation gap 1 - CKA between student and teacher, the mean over the levels
               that they share: the teacher that differs most weighs most. Auto-KD, ICCV 2023 (statistics in place of
               training)
    gradient   in inverse proportion to the norm of the teacher's loss gradient on the student's taps, so that each
               teacher's gradient has the same norm
    numbers    as given, divided by their sum

The second and third are measured as ``measured`` describes. A teacher of which nothing can be measured (no common
level, no gradient yet) counts as the mean of the others.

Legend: T teachers, B images, C channels, H x W cells, R rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn

from autokd.config import TeacherWeights
from autokd.detector_outputs import DetectorOutputs
from autokd.distill.build import RECALIBRATE_EVERY, build_distiller
from autokd.distill.distiller import Distiller, DistillResult, TermValue
from autokd.distill.geometry.levels import cropped_alike, pair_levels
from autokd.distill.geometry.regions import Targets
from autokd.distill.linear_cka import LinearCKA
from autokd.distill.term_inputs import device_of
from autokd.distill.weighting.measured import LEAST_GAP, MeasuredFactors, inverse_gradient_norms, is_due
from autokd.errors import DistillError, NonFiniteError
from autokd.spec import DistillerSpec


class TeacherShares(MeasuredFactors):
    """The shares of several teachers in the loss, 1 in sum."""

    def normalized(self, measured_P: Tensor, is_valid_P: Tensor) -> Tensor:
        measured_P = torch.where(is_valid_P, measured_P, measured_P[is_valid_P].mean())
        return measured_P / measured_P.sum()


class TeacherEnsemble(nn.Module):
    """The distillation loss of a student and several teachers, built by ``build_ensemble``; called as a distiller."""

    def __init__(
        self,
        distillers: Sequence[Distiller],
        factors: TeacherWeights = "equal",
        recalibrate_every: int | None = RECALIBRATE_EVERY,
    ) -> None:
        """Join the distillers of several teachers.

        Args:
            distillers: one for each teacher.
            factors: a rule ("equal", "gap", "gradient"), or a positive number for each teacher.
            recalibrate_every: steps between two measurements of shares; None: the first ones stay.

        Raises:
            DistillError: if there is not a number for each teacher.
        """
        super().__init__()
        self.distillers = nn.ModuleList(distillers)
        self.rule = factors if isinstance(factors, str) else "given"
        self._recalibrate_every = recalibrate_every
        given = [1.0] * len(distillers) if isinstance(factors, str) else list(factors)
        if len(given) != len(distillers):
            raise DistillError(f"found {len(given)} factors for {len(distillers)} teachers. Give one a teacher.")
        shares = [factor / math.fsum(given) for factor in given]
        self.shares = TeacherShares(shares, least=LEAST_GAP if self.rule == "gap" else 0.0)

    def named_distillers(self) -> Iterator[tuple[str, Distiller]]:
        """Yield each distiller with its teacher's name: "teacher 1", in the order in which they were given."""
        for k, distiller in enumerate(self.distillers, start=1):
            yield f"teacher {k}", cast(Distiller, distiller)

    @property
    def shares_T(self) -> Tensor:
        """(T,): the share of each teacher in the loss, above 0, with sum 1."""
        return self.shares.factors_P

    @property
    def step(self) -> int:
        """Calls in training mode so far."""
        return cast(Distiller, self.distillers[0]).step

    @property
    def inactive_terms(self) -> tuple[str, ...]:
        """Names of the inactive terms, "teacher 1/feature_map.l2": ``Distiller.inactive_terms`` of every teacher."""
        return tuple(
            f"{name}/{term}" for name, distiller in self.named_distillers() for term in distiller.inactive_terms
        )

    def gradient_shares(self) -> dict[str, float]:
        """Return the shares of every teacher's terms, "teacher 1/feature_map.l2": ``Distiller.gradient_shares``."""
        return {
            f"{name}/{term}": share
            for name, distiller in self.named_distillers()
            for term, share in distiller.gradient_shares().items()
        }

    @property
    def is_inactive(self) -> bool:
        """Whether every term of every teacher is inactive."""
        return all(distiller.is_inactive for _, distiller in self.named_distillers())

    def begin_epoch(self, epoch: int, num_epochs: float, steps_per_epoch: int) -> None:
        """Set the progress and renew the memories of every distiller.

        Args:
            epoch: the epoch that begins, from 1.
            num_epochs: epochs of the whole training; not a whole number if the training ends within an epoch.
            steps_per_epoch: calls in training mode in each epoch.
        """
        for _, distiller in self.named_distillers():
            distiller.begin_epoch(epoch, num_epochs, steps_per_epoch)

    def forward(
        self, outputs_s: DetectorOutputs, outputs_T: Sequence[DetectorOutputs], targets: Targets | None = None
    ) -> DistillResult:
        """Compute the distillation loss of a batch.

        Args:
            outputs_s: the student's outputs.
            outputs_T: the outputs of each teacher for the same images.
            targets: as of ``Distiller.forward``.

        Returns:
            The loss, and terms named "teacher 1/feature_map.l2", whose weights contain the share.

        Raises:
            NonFiniteError, DistillError: as ``Distiller.forward``, naming the teacher.
        """
        if len(outputs_T) != len(self.distillers):
            raise DistillError(
                f"found outputs of {len(outputs_T)} teachers; this was built for {len(self.distillers)}."
            )
        measures = self.training and torch.is_grad_enabled() and is_due(self.step, self._recalibrate_every)
        results: dict[str, DistillResult] = {}
        for (name, distiller), outputs_t in zip(self.named_distillers(), outputs_T, strict=True):
            with _named(name):
                results[name] = distiller(outputs_s, outputs_t, targets)
        totals = [result.total for result in results.values()]
        if measures and self.rule == "gap":
            self.shares.follow([representation_gap(outputs_s, outputs_t) for outputs_t in outputs_T])
        elif measures and self.rule == "gradient":
            taps = [tap for tap in outputs_s.pyramid.values() if tap.requires_grad]
            self.shares.follow(inverse_gradient_norms(totals, taps))
        # A copy for the graph: a later measurement writes into the buffer, and backward would read the new numbers.
        shares_T = self.shares_T.clone()
        terms = {
            f"{name}/{term}": TermValue(value.raw, share * value.weighted, share * value.weight)
            for (name, result), share in zip(results.items(), shares_T, strict=True)
            for term, value in result.terms.items()
        }
        return DistillResult((torch.stack(totals) * shares_T).sum(), terms)

    def find_unlabeled_terms(self, outputs_s: DetectorOutputs, outputs_T: Sequence[DetectorOutputs]) -> frozenset[str]:
        """Find out which terms of every distiller read no ground truth: ``Distiller.find_unlabeled_terms``.

        Args:
            outputs_s: outputs of the student.
            outputs_T: those of each teacher for the same images, in their order.

        Returns:
            Names, ``TEACHER/TERM``.
        """
        return frozenset(
            f"{name}/{term}"
            for (name, distiller), outputs_t in zip(self.named_distillers(), outputs_T, strict=True)
            for term in distiller.find_unlabeled_terms(outputs_s, outputs_t)
        )

    def without_labels(self, outputs_s: DetectorOutputs, outputs_T: Sequence[DetectorOutputs]) -> Tensor:
        """Compute the loss of images without ground truth, by the present shares: ``Distiller.without_labels``.

        Args:
            outputs_s: outputs of the student.
            outputs_T: those of each teacher for the same images, in their order.

        Returns:
            The loss, a scalar with its graph.
        """
        pairs = zip(self.named_distillers(), outputs_T, strict=True)
        totals = [distiller.without_labels(outputs_s, outputs_t) for (_, distiller), outputs_t in pairs]
        return (torch.stack(totals) * self.shares_T.clone()).sum()


def build_ensemble(
    spec: DistillerSpec,
    student: DetectorOutputs,
    teachers: Sequence[DetectorOutputs],
    num_classes: int,
    factors: TeacherWeights = "equal",
    recalibrate_every: int | None = RECALIBRATE_EVERY,
) -> TeacherEnsemble:
    """Build the distiller of ``spec`` for every teacher, with adapters of its own, on the student's device.

    Args:
        spec: the distiller, the same for all teachers.
        student: any outputs of the student.
        teachers: any outputs of each teacher.
        num_classes: classes of the data set.
        factors: a rule for the shares, or a positive number for each teacher.
        recalibrate_every: as of ``build_distiller``.

    Returns:
        A module that is called with the student's outputs, those of every teacher, and the targets.

    Raises:
        SpecError, DistillError: as ``build_distiller``, naming the teacher.
    """
    distillers = []
    for k, teacher in enumerate(teachers, start=1):
        with _named(f"teacher {k}"):
            distillers.append(build_distiller(spec, student, teacher, num_classes, recalibrate_every))
    return TeacherEnsemble(distillers, factors, recalibrate_every).to(device_of(student))


def representation_gap(student: DetectorOutputs, teacher: DetectorOutputs) -> float:
    """Return 1 - linear CKA between the cells of both, the mean over levels of equal stride; NaN if there is none."""
    gaps = []
    for pair in pair_levels(student, teacher, must_share=False):
        maps = cropped_alike(student.pyramid[pair.student], teacher.pyramid[pair.teacher].detach(), pair)
        cka = LinearCKA()
        cka.add(*(map_BCHW.detach().permute(0, 2, 3, 1).flatten(0, 2).to(maps[0].device) for map_BCHW in maps))
        gaps.append(1.0 - cka.value())
    return sum(gaps) / len(gaps) if gaps else math.nan


@contextmanager
def _named(teacher: str) -> Iterator[None]:
    """Say in errors which teacher it was."""
    try:
        yield
    except (DistillError, NonFiniteError) as error:
        raise type(error)(f"{teacher}: {error}") from None


__all__ = ["TeacherEnsemble", "build_ensemble", "representation_gap"]
