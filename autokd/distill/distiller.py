"""The distiller: a sum of weighted terms over what two detectors expose."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from autokd.detector_outputs import DetectorOutputs
from autokd.distill.finite import raise_if_not_finite, summary
from autokd.distill.geometry.levels import LevelPair
from autokd.distill.geometry.regions import Targets
from autokd.distill.operators import Memory
from autokd.distill.step_memo import Observer
from autokd.distill.term import Term
from autokd.distill.term_inputs import TargetsMissingError, TermInputs
from autokd.distill.weighting.balance import GradientBalance, SumOverProcesses
from autokd.distill.weighting.measured import is_due
from autokd.distill.weighting.schedules import is_over, schedule_factor
from autokd.errors import DistillError
from autokd.spec import DistillerSpec


@dataclass(frozen=True, slots=True)
class TermValue:
    """One term of one batch, as detached tensors of shape ().

    Attributes:
        raw: value of the term before its weight.
        weighted: ``weight`` * ``raw``, the term's part of the total.
        weight: factor of the term in this batch, its schedule included.
    """

    raw: Tensor
    weighted: Tensor
    weight: Tensor


@dataclass(frozen=True, slots=True)
class DistillResult:
    """The distillation loss of a batch.

    Attributes:
        total: sum of the weighted terms, shape (), with its graph; a training adds it to the task loss.
        terms: name of a term -> its value, detached, for records.
    """

    total: Tensor
    terms: Mapping[str, TermValue]


class Distiller(nn.Module):
    """The distillation loss of a student and a teacher, built by ``build_distiller``.

    Its parameters (adapters, and operators' own) belong into the optimizer beside the student's. It computes in float32
    outside autocast. The teacher never gets a gradient. Calls in training mode count as steps, at some of which the
    relative weights are measured; calls in evaluation mode or under ``no_grad`` use the last ones.
    """

    def __init__(
        self,
        spec: DistillerSpec,
        terms: Mapping[str, Term],
        pairs: tuple[LevelPair, ...],
        adapters: nn.ModuleList,
        recalibrate_every: int | None,
        sum_over_processes: SumOverProcesses | None = None,
        mlp_adapters: nn.ModuleList | None = None,
    ) -> None:
        """Join terms to a distiller.

        Args:
            spec: the distiller in canonical form.
            terms: name -> term, in the order of ``spec.terms``.
            pairs: levels of student and teacher that have equal strides.
            adapters: a module for each pair, which maps the student's channels to the teacher's; empty if no term reads
                the paired levels through a linear adapter.
            recalibrate_every: steps between two measurements of relative weights after the first ones; None: the first
                ones stay.
            sum_over_processes: adds up a tensor over the processes that train one student; None if there is one
                process.
            mlp_adapters: the same for terms with the adapter "mlp"; None if there is no such term.
        """
        super().__init__()
        self.spec = spec
        self.pairs = pairs
        self.adapters = adapters
        self.mlp_adapters = mlp_adapters
        self.names = tuple(terms)
        self.terms = nn.ModuleList(terms.values())
        self.unlabeled_terms: frozenset[str] = frozenset()
        """Names of the terms that ``without_labels`` sums; ``find_unlabeled_terms`` finds them."""
        self.step = 0
        self.progress = 0.0
        """Part of the training that is over, 0 to 1; schedules of weights follow it."""
        self.observer: Observer | None = None
        """Called with the key of each value that terms share, when it is computed: see ``StepMemo``."""
        self._progress_per_step = 0.0
        self._recalibrate_every = recalibrate_every
        self._relative = [i for i, term in enumerate(terms.values()) if term.weight.is_measured]
        weights = [list(terms.values())[i].weight for i in self._relative]
        ratios, holds_share = [weight.ratio for weight in weights], [weight.kind == "share" for weight in weights]
        self.balance = GradientBalance(ratios, recalibrate_every, sum_over_processes, holds_share) if ratios else None
        self._absolute: Tensor
        absolute = [1.0 if term.weight.is_measured else term.weight.value for term in terms.values()]
        self.register_buffer("_absolute", torch.tensor(absolute), persistent=False)
        self._relative_index: Tensor
        self.register_buffer("_relative_index", torch.tensor(self._relative, dtype=torch.int64), persistent=False)

    def begin_epoch(self, epoch: int, num_epochs: float, steps_per_epoch: int) -> None:
        """Set the progress that schedules follow, and renew memories.

        Args:
            epoch: the epoch that begins, from 1.
            num_epochs: epochs of the whole training; not a whole number if the training ends within an epoch.
            steps_per_epoch: calls in training mode in each epoch.
        """
        self.progress = (epoch - 1) / num_epochs
        self._progress_per_step = 1.0 / (num_epochs * steps_per_epoch)
        in_use = (module for i, term in enumerate(self.terms) if not self._is_off(i) for module in term.modules())
        if self.balance is not None:
            self.balance.begin_epoch()
        for module in dict.fromkeys(in_use):
            if isinstance(module, Memory):
                module.begin_epoch(epoch)

    def named_terms(self) -> Iterator[tuple[str, Term]]:
        """Yield each term with its name, in the spec's canonical order."""
        for name, term in zip(self.names, self.terms):
            yield name, cast(Term, term)

    def forward(
        self, outputs_s: DetectorOutputs, outputs_t: DetectorOutputs, targets: Targets | None = None
    ) -> DistillResult:
        """Compute the distillation loss of a batch.

        Args:
            outputs_s, outputs_t: outputs of student and teacher for the same images; the student's with ``losses`` if
                a weight is relative.
            targets: for each image ``boxes`` (n, 4), xyxy pixels of the network's input, and ``labels`` (n,); needed
                if a term reads them.

        Returns:
            The loss and each term's value.

        Raises:
            NonFiniteError: naming the tap or the term that holds NaN or infinity.
            DistillError: if the outputs are not as those that the distiller was built for.
        """
        is_training = self.training and torch.is_grad_enabled()
        inputs = TermInputs(
            outputs_s,
            outputs_t,
            targets,
            self.pairs,
            self.adapters,
            seed=self.step,
            progress=self.progress,
            is_training=is_training,
            measures=is_training and is_due(self.step, self._recalibrate_every),
            observer=self.observer,
            mlp_adapters=self.mlp_adapters,
        )
        # Sums of squares and softmax statistics lose too much in float16; under autocast products would use it.
        with torch.autocast(inputs.device.type, enabled=False):
            # A term that is off for good costs nothing: its value is not computed, and has no gradient to measure.
            values = [self._absolute.new_zeros(()) if self._is_off(i) else term(inputs)
                      for i, term in enumerate(self.terms)]  # fmt: skip
            weights = self._weights(inputs, values) * self._schedule()
            raw = torch.stack(values)
            weighted = raw * weights
            self._inspect(inputs, raw)
        if self.training:
            self.step += 1
            self.progress = min(self.progress + self._progress_per_step, 1.0)
        parts = zip(self.names, raw.detach(), weighted.detach(), weights, strict=True)
        return DistillResult(weighted.sum(), {name: TermValue(r, w, f) for name, r, w, f in parts})

    @torch.no_grad()
    def find_unlabeled_terms(self, outputs_s: DetectorOutputs, outputs_t: DetectorOutputs) -> frozenset[str]:
        """Find out which terms read no ground truth, by computing each without.

        Args:
            outputs_s, outputs_t: any outputs of student and teacher for the same images.

        Returns:
            ``unlabeled_terms``, which later calls of ``without_labels`` sum.
        """
        inputs, found = self._inputs_without_labels(outputs_s, outputs_t), set()
        for name, term in self.named_terms():
            with suppress(TargetsMissingError), torch.autocast(inputs.device.type, enabled=False):
                term(inputs)
                found.add(name)
        self.unlabeled_terms = frozenset(found)
        return self.unlabeled_terms

    def without_labels(self, outputs_s: DetectorOutputs, outputs_t: DetectorOutputs) -> Tensor:
        """Compute the loss of images without ground truth: the terms that read none, by their present weights.

        It is no step: nothing is measured, and no memory stores what it sees.

        Args:
            outputs_s, outputs_t: outputs of student and teacher for the same images.

        Returns:
            The weighted sum of ``unlabeled_terms``, a scalar with its graph.

        Raises:
            DistillError: if a relative weight has never been measured.
        """
        inputs = self._inputs_without_labels(outputs_s, outputs_t)
        with torch.autocast(inputs.device.type, enabled=False):
            values = [
                term(inputs) if name in self.unlabeled_terms and not self._is_off(i) else self._absolute.new_zeros(())
                for i, (name, term) in enumerate(self.named_terms())
            ]
            return (torch.stack(values) * self._weights(inputs, values) * self._schedule()).sum()

    def _inputs_without_labels(self, outputs_s: DetectorOutputs, outputs_t: DetectorOutputs) -> TermInputs:
        return TermInputs(
            replace(outputs_s, losses=None), outputs_t, None, self.pairs, self.adapters,
            seed=self.step, progress=self.progress, mlp_adapters=self.mlp_adapters,
        )  # fmt: skip

    def _schedule(self) -> Tensor:
        """(terms,): the factor of each weight at this time of the training."""
        factors = [schedule_factor(cast(Term, term).weight, self.progress) for term in self.terms]
        return torch.tensor(factors, device=self._absolute.device)

    def _is_off(self, index: int) -> bool:
        """Whether a term's weight is 0 for the rest of the training."""
        return is_over(cast(Term, self.terms[index]).weight, self.progress)

    def _weights(self, inputs: TermInputs, values: Sequence[Tensor]) -> Tensor:
        """(terms,): each term's factor, measured again if that is due."""
        if self.balance is None:
            return self._absolute
        task_loss = inputs.student.task_loss
        taps = [level for level, tap in inputs.student.pyramid.items() if tap.requires_grad]
        can_measure = torch.is_grad_enabled() and task_loss is not None and task_loss.requires_grad and bool(taps)
        due = self.balance.due(self.step) if self.training and can_measure else []
        due = [i for i in due if not self._is_off(self._relative[i])]
        if due:
            assert task_loss is not None
            self.balance.measure(
                due,
                task_loss,
                [values[i] for i in self._relative],
                [inputs.student.pyramid[level] for level in taps],
                [inputs.student_maps[level] for level in taps],
                list(inputs.teacher_maps.values()),
                [cast(Term, self.terms[self._relative[i]]).differs(inputs, values[self._relative[i]]) for i in due],
            )
        if not self.balance.has_begun:
            raise DistillError(
                f"the relative weight of {self.names[self._relative[0]]!r} has never been measured: that needs one "
                "call in training mode, with gradients, with the student's task losses in DetectorOutputs.losses. "
                "Give them, or use an absolute weight."
            )
        return self._absolute.index_copy(0, self._relative_index, self.balance.factors_T)

    def _inspect(self, inputs: TermInputs, raw: Tensor) -> None:
        """Check that everything is finite, and read which relative terms are to be measured at once.

        Both are read with one transfer: each transfer from a GPU waits for all that was queued there.
        """
        report = summary(inputs, raw)
        status = report.new_zeros(0) if self.balance is None else self.balance.status()
        numbers = torch.cat([report, status]).tolist()
        raise_if_not_finite(numbers[: len(report)], inputs, dict(zip(self.names, raw)))
        if self.balance is not None:
            self.balance.read_status(numbers[len(report) :])

    @property
    def inactive_terms(self) -> tuple[str, ...]:
        """Names of the relative terms of which no gradient could be measured so far: their weight is 0."""
        if self.balance is None:
            return ()
        states = zip(self._relative, self.balance.is_active, strict=True)
        return tuple(self.names[i] for i, is_active in states if not is_active)

    def gradient_shares(self) -> dict[str, float]:
        """Return each measured term's share of the gradient, ||term|| / (||task|| + ||term||), as last measured.

        The factor of the term is in it, that of the schedule is not. Terms without a measurement are left out.
        """
        if self.balance is None:
            return {}
        shares = zip(self._relative, self.balance.latest_shares, strict=True)
        return {self.names[i]: share for i, share in shares if math.isfinite(share)}

    @property
    def is_inactive(self) -> bool:
        """Whether every term is inactive: the loss has been 0 in every step."""
        return len(self.inactive_terms) == len(self.names)

    def get_extra_state(self) -> dict[str, Any]:
        """Return what a checkpoint holds beside parameters and buffers."""
        state: dict[str, Any] = {
            "step": self.step,
            "progress": self.progress,
            "progress_per_step": self._progress_per_step,
        }
        if self.balance is not None:
            state["balance"] = {
                "has_begun": self.balance.has_begun,
                "is_pending": self.balance.is_pending,
                "is_active": self.balance.is_active,
                "latest_shares": self.balance.latest_shares,
            }
        return state

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore what ``get_extra_state`` returned: random numbers, schedules and measurements go on from there."""
        self.step = state["step"]
        self.progress = state["progress"]
        self._progress_per_step = state["progress_per_step"]
        if self.balance is not None:
            for name, value in state["balance"].items():
                setattr(self.balance, name, value)
