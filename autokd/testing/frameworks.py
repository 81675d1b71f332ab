"""Tests that every detector of every framework passes: ``DetectorConformance``.

In a test module of your own, subclass it under a name that pytest collects, and give the fixture ``case``::

    class TestMyFramework(DetectorConformance):
        @pytest.fixture(params=[DetectorCase("small", MySection(framework="mine"))], ids=str)
        def case(self, request):
            return request.param

Legend: B images, C channels, H x W pixels or cells, A candidate boxes of an image, K classes, R proposals of an image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest
import torch
from torch import Tensor, nn

from autokd.config import DetectorSection
from autokd.detector_outputs import PYRAMID_TAP, TAPS, DetectorOutputs, taps_where
from autokd.detectors import Detections, Detector, build_detector, describe, framework_of, load_weights
from autokd.detectors.contract import DEFAULT_TAPS, Target
from autokd.detectors.proposals import NUM_PROPOSALS
from autokd.errors import DetectorError, NonFiniteError
from autokd.spec.families import DETECTOR_FAMILIES

NUM_CLASSES = 5
SIZE_PX = (96, 128)
"""(height, width) of the images of the suite."""
_ODD_SIZES_PX = ((70, 91), (64, 64))
_T = TypeVar("_T")


@dataclass(frozen=True)
class DetectorCase:
    """A detector that the suite builds, and the ways in which it may differ from others.

    Args:
        name: for pytest's ids.
        section: its configuration, small enough for a CPU; without a checkpoint.
        head_of: returns the module whose ``forward`` must not run if only the pyramid is asked for; None: not tested.
        clips_boxes: whether detections end at the image's border.
        box_tolerance: (relative, absolute in pixels) difference allowed between boxes with and without targets, if a
            framework computes the two in different order. Class logits are then not compared.
    """

    name: str
    section: DetectorSection
    head_of: Callable[[Detector], nn.Module] | None = None
    clips_boxes: bool = True
    box_tolerance: tuple[float, float] | None = None

    def __str__(self) -> str:
        return self.name

    def build(self, size_px: tuple[int, int] = SIZE_PX) -> Detector:
        """Return the detector, its batch statistics moved off their initial values, so that errors show.

        Args:
            size_px: (height, width) of the network's input.
        """
        detector = build_detector(self.section, NUM_CLASSES, size_px)
        with torch.no_grad():
            for module in detector.modules():
                if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
                    module.running_mean.normal_(std=0.2)
                    module.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]
        return detector

    @property
    def taps(self) -> tuple[str, ...]:
        """Taps that the framework declares for this detector."""
        return framework_of(self.section).taps(self.section)


class DetectorConformance:
    """The suite. Each test builds the case's detector from the seed 0, on one thread."""

    @pytest.fixture
    def case(self) -> DetectorCase:
        """Give the detector under test; a subclass overrides it, with ``params`` for several."""
        raise NotImplementedError("override the fixture 'case' of DetectorConformance")

    @pytest.fixture(autouse=True)
    def _seeded(self) -> None:
        torch.set_num_threads(1)
        torch.manual_seed(0)

    @pytest.fixture
    def detector(self, case: DetectorCase) -> Detector:
        """Build the detector under test."""
        return case.build()

    @pytest.fixture
    def images_BCHW(self) -> Tensor:
        """Three images of noise."""
        return torch.rand(3, 3, *SIZE_PX, generator=torch.Generator().manual_seed(1))

    @pytest.fixture
    def targets(self) -> list[dict[str, Tensor]]:
        """Two images with boxes, one without."""
        return [
            {
                "boxes": torch.tensor([[10.0, 12.0, 30.0, 40.0], [50.0, 20.0, 110.0, 80.0]]),
                "labels": torch.tensor([0, 4]),
            },
            {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
            {"boxes": torch.tensor([[5.0, 50.0, 17.0, 61.0]]), "labels": torch.tensor([2])},
        ]

    # ------------------------------------------------------------------------------------------ taps

    def test_one_forward_gives_finite_losses_and_the_pyramid(
        self, detector: Detector, images_BCHW: Tensor, targets: list[Target]
    ) -> None:
        outputs = detector(images_BCHW, targets)
        assert list(outputs.pyramid) == list(outputs.strides) == list(detector.level_names)
        assert outputs.strides == detector.strides
        assert list(outputs.strides.values()) == sorted(outputs.strides.values())
        _assert_levels_cover(outputs, SIZE_PX, detector.pad_multiple_px)
        assert next(iter(outputs.pyramid.values())).shape[:2] == (3, detector.channels)
        assert outputs.losses
        assert all(loss.ndim == 0 and loss.isfinite() for loss in outputs.losses.values())

    def test_the_taps_are_those_declared(
        self, case: DetectorCase, detector: Detector, images_BCHW: Tensor, targets: list[Target]
    ) -> None:
        assert case.taps[0] == PYRAMID_TAP
        assert case.taps == tuple(tap for tap in TAPS if tap in case.taps), "not in the order of TAPS"
        assert set(detector(images_BCHW, targets, taps=TAPS).taps()) == set(case.taps)
        assert set(detector(images_BCHW, taps=TAPS).taps()) == set(case.taps)

    def test_unasked_a_forward_gives_the_default_taps(
        self, case: DetectorCase, detector: Detector, images_BCHW: Tensor
    ) -> None:
        assert set(detector(images_BCHW).taps()) == set(case.taps) & set(DEFAULT_TAPS)

    def test_taps_have_one_row_a_candidate(
        self, case: DetectorCase, detector: Detector, images_BCHW: Tensor, targets: list[Target]
    ) -> None:
        outputs = detector(images_BCHW, targets, taps=TAPS)
        if outputs.proposals is not None:
            assert outputs.proposals.shape == (3, NUM_PROPOSALS, 4)
        if outputs.class_logits is None:
            return
        num_candidates = outputs.class_logits.shape[1]
        assert outputs.class_logits.shape == (3, num_candidates, NUM_CLASSES)
        assert outputs.boxes is not None
        assert outputs.boxes.shape == (3, num_candidates, 4)
        assert outputs.boxes.isfinite().all()
        assert (outputs.boxes[..., 2:] >= outputs.boxes[..., :2]).all()
        if outputs.edge_logits is not None:
            assert outputs.edge_logits.shape[:3] == (3, num_candidates, 4)

    def test_the_declared_layout_has_as_many_candidates_as_the_taps(
        self, case: DetectorCase, detector: Detector, images_BCHW: Tensor
    ) -> None:
        layout = framework_of(case.section).layout(case.section, SIZE_PX, SIZE_PX)
        if layout is None or not layout.cells:  # nothing to compare row by row, or queries
            return
        outputs = detector.eval()(images_BCHW, taps=TAPS)
        assert outputs.class_logits is not None
        assert outputs.class_logits.shape[1] == layout.number
        assert [stride for stride, _, _ in layout.cells] == list(outputs.strides.values())
        if outputs.edge_logits is not None:
            assert outputs.edge_logits.shape[3] == layout.num_bins

    def test_taps_without_targets_are_those_with_targets(
        self, case: DetectorCase, detector: Detector, images_BCHW: Tensor, targets: list[Target]
    ) -> None:
        detector.eval()
        without, beside = detector(images_BCHW, taps=TAPS), detector(images_BCHW, targets, taps=TAPS)
        for level, map_BCHW in without.pyramid.items():
            torch.testing.assert_close(map_BCHW, beside.pyramid[level])
        if case.box_tolerance is not None:
            relative, absolute = case.box_tolerance
            torch.testing.assert_close(without.boxes, beside.boxes, rtol=relative, atol=absolute)
            return
        for tap in taps_where(is_by_candidate=True):
            if getattr(without, tap) is not None:
                torch.testing.assert_close(getattr(without, tap), getattr(beside, tap))

    def test_the_family_is_one_for_which_distillers_are_published_or_none(self, case: DetectorCase) -> None:
        assert framework_of(case.section).detector_family(case.section) in (*DETECTOR_FAMILIES, None)

    def test_only_the_wanted_taps_are_given_and_else_the_heads_rest(
        self, case: DetectorCase, detector: Detector, images_BCHW: Tensor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise AssertionError("the head ran")

        if case.head_of is not None:
            monkeypatch.setattr(case.head_of(detector), "forward", refuse)
        outputs = detector.eval()(images_BCHW, taps=(PYRAMID_TAP,))
        assert outputs.taps() == (PYRAMID_TAP,)
        assert outputs.losses is None
        assert outputs.task_loss is None
        if case.head_of is not None:
            with pytest.raises(AssertionError, match="the head ran"):
                detector(images_BCHW, taps=("class_logits", "proposals"))

    def test_taps_carry_gradient_to_the_first_convolution(self, detector: Detector, images_BCHW: Tensor) -> None:
        detector.train()
        with torch.no_grad():
            for parameter in detector.parameters():  # the last layers of some heads begin at zero
                parameter.add_(torch.randn_like(parameter), alpha=0.01)
        outputs = detector(images_BCHW, taps=TAPS)
        weight = _first_convolution(detector)
        for tap in (*outputs.pyramid.values(), outputs.class_logits, outputs.boxes, outputs.edge_logits):
            if tap is not None:
                (gradient,) = torch.autograd.grad(tap.square().mean(), weight, retain_graph=True)
                assert gradient.isfinite().all()
                assert gradient.abs().sum() > 0
        assert outputs.proposals is None or not outputs.proposals.requires_grad

    def test_proposals_are_distinct_boxes_within_the_image(
        self, case: DetectorCase, detector: Detector, images_BCHW: Tensor
    ) -> None:
        if "proposals" not in case.taps:
            return
        proposals = detector.eval()(images_BCHW, taps=("proposals",)).proposals
        is_box = proposals.isfinite().all(2)
        assert is_box[:, 0].all()
        assert (is_box.int().diff(dim=1) <= 0).all()
        for boxes, taken in zip(proposals, is_box):
            kept = boxes[taken]
            assert (kept >= 0).all()
            assert (kept <= _limits(SIZE_PX)).all()
            assert len(kept.unique(dim=0)) == len(kept)

    def test_half_precision_gives_float32_taps_and_finite_losses(
        self, detector: Detector, images_BCHW: Tensor, targets: list[Target]
    ) -> None:
        detector.train()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            outputs = detector(images_BCHW, targets, taps=TAPS)
        tensors = [getattr(outputs, tap) for tap in taps_where(form="tensor")]
        for tap in (*outputs.pyramid.values(), *tensors, outputs.task_loss):
            assert tap is None or tap.dtype == torch.float32
        outputs.task_loss.backward()
        assert outputs.task_loss.isfinite()

    # ------------------------------------------------------------------------------- sizes and detections

    @pytest.mark.parametrize("size_px", _ODD_SIZES_PX)
    def test_odd_sizes_are_padded_and_never_resized(self, case: DetectorCase, size_px: tuple[int, int]) -> None:
        detector = case.build()
        images = torch.rand(2, 3, *size_px)
        targets = [{"boxes": torch.tensor([[4.0, 5.0, 40.0, 45.0]]), "labels": torch.tensor([1])}] * 2
        outputs = detector(images, targets)
        _assert_levels_cover(outputs, size_px, detector.pad_multiple_px)
        assert outputs.task_loss.isfinite()
        for found in detector.detect(images):
            boxes, limits = found["boxes"], _limits(size_px)
            if case.clips_boxes:
                assert (boxes >= 0).all()
                assert (boxes <= limits).all()
            else:  # they overlap the image all the same
                overlap = boxes.clamp(min=0).minimum(limits)
                assert (overlap[:, 2:] >= overlap[:, :2]).all()

    def test_detections_are_in_range_and_sorted(self, detector: Detector, images_BCHW: Tensor) -> None:
        for found in detector.detect(images_BCHW):
            assert len(found["boxes"]) == len(found["scores"]) == len(found["labels"])
            assert ((found["labels"] >= 0) & (found["labels"] < NUM_CLASSES)).all()
            assert ((found["scores"] >= 0) & (found["scores"] <= 1)).all()
            assert (found["scores"].diff() <= 0).all()

    def test_forward_and_detect_agrees_with_both_and_restores_the_mode(
        self, detector: Detector, images_BCHW: Tensor, targets: list[Target]
    ) -> None:
        detector.train()
        outputs, found = detector.forward_and_detect(images_BCHW, targets)
        assert detector.training
        detector.eval()
        assert _numbers(outputs) == _numbers(detector(images_BCHW, targets))
        for one, other in zip(found, detector.detect(images_BCHW)):
            assert all(torch.equal(one[name], other[name]) for name in ("boxes", "scores", "labels"))

    def test_detect_leaves_each_modules_mode_and_statistics(self, detector: Detector, images_BCHW: Tensor) -> None:
        norms = [module for module in detector.train().modules() if isinstance(module, nn.BatchNorm2d)]
        for norm in norms[:1]:
            norm.eval()
        modes = {part: part.training for part in detector.modules()}
        state = _copy(detector)
        detector.detect(images_BCHW)
        assert {part: part.training for part in detector.modules()} == modes
        assert all(torch.equal(value, state[name]) for name, value in detector.state_dict().items())

    # ----------------------------------------------------------------------------------------- training

    def test_a_single_image_trains(self, detector: Detector, images_BCHW: Tensor, targets: list[Target]) -> None:
        outputs = detector.train()(images_BCHW[:1], targets[:1])
        outputs.task_loss.backward()
        assert outputs.task_loss.isfinite()

    def test_images_without_boxes_give_a_finite_loss_and_gradient(
        self, detector: Detector, images_BCHW: Tensor, targets: list[Target]
    ) -> None:
        outputs = detector.train()(images_BCHW, [targets[1]] * 3)
        outputs.task_loss.backward()
        assert outputs.task_loss.isfinite()
        gradients = [parameter.grad for parameter in detector.parameters() if parameter.grad is not None]
        assert gradients
        assert all(gradient.isfinite().all() for gradient in gradients)

    def test_one_step_changes_the_first_convolution_and_half_of_the_weights_that_train(
        self, detector: Detector, images_BCHW: Tensor, targets: list[Target]
    ) -> None:
        weights = [parameter for parameter in detector.train().parameters() if parameter.requires_grad]
        before = [weight.detach().clone() for weight in weights]
        first, first_before = _first_convolution(detector), _first_convolution(detector).detach().clone()
        optimizer = torch.optim.SGD(weights, lr=0.1)
        detector(images_BCHW, targets).task_loss.backward()
        optimizer.step()
        assert not torch.equal(first, first_before)
        changed = [not torch.equal(weight, old) for weight, old in zip(weights, before)]
        assert sum(changed) >= len(weights) / 2

    def test_evaluation_leaves_the_state_alone(
        self, detector: Detector, images_BCHW: Tensor, targets: list[Target]
    ) -> None:
        state = _copy(detector.eval())
        detector(images_BCHW, targets)
        detector.forward_and_detect(images_BCHW, targets)
        assert all(torch.equal(value, state[name]) for name, value in detector.state_dict().items())
        assert not any(part.training for part in detector.modules())

    def test_evaluation_losses_repeat_and_leave_the_random_state_alone(
        self, detector: Detector, images_BCHW: Tensor, targets: list[Target]
    ) -> None:
        detector.eval()
        state = torch.get_rng_state()
        first = _numbers(detector(images_BCHW, targets))
        assert torch.equal(torch.get_rng_state(), state)
        torch.rand(7)
        assert _numbers(detector(images_BCHW, targets)) == first

    def test_diverged_weights_end_in_a_loss_that_is_not_finite_and_find_nothing(
        self, detector: Detector, images_BCHW: Tensor, targets: list[Target]
    ) -> None:
        with torch.no_grad():
            for parameter in getattr(detector.model, "backbone", detector.model).parameters():
                parameter.fill_(float("nan"))
        outputs = _unless_non_finite(lambda: detector.train()(images_BCHW, targets))
        assert outputs is None or not outputs.task_loss.isfinite()
        detections: Sequence[Detections] = _unless_non_finite(lambda: detector.detect(images_BCHW)) or ()
        assert all(len(found["boxes"]) == 0 for found in detections)

    # ------------------------------------------------------------------------------------------ building

    def test_equal_seeds_build_equal_detectors(self, case: DetectorCase) -> None:
        torch.manual_seed(3)
        one = case.build().plain_state_dict()
        torch.manual_seed(3)
        other = case.build().plain_state_dict()
        assert all(torch.equal(one[name], other[name]) for name in one)

    def test_weights_load_in_another_detector_of_the_same_section(
        self, case: DetectorCase, detector: Detector, images_BCHW: Tensor, tmp_path: Path
    ) -> None:
        torch.save(detector.plain_state_dict(), tmp_path / "weights.pt")
        other = case.build()
        load_weights(other, tmp_path / "weights.pt")
        for one, again in zip(detector.detect(images_BCHW), other.detect(images_BCHW)):
            assert all(torch.equal(one[name], again[name]) for name in ("boxes", "scores", "labels"))

    def test_the_description_counts_what_the_model_has(self, detector: Detector) -> None:
        description = describe(detector)
        assert description.num_parameters == sum(parameter.numel() for parameter in detector.model.parameters())
        assert list(description.levels) == list(detector.level_names)
        assert description.num_classes == NUM_CLASSES
        assert all(level in str(description) for level in detector.level_names)

    def test_the_structure_has_a_text_and_the_section_survives_a_file(self, case: DetectorCase) -> None:
        framework = framework_of(case.section)
        again = type(case.section).model_validate(case.section.model_dump(mode="json"))
        assert again == case.section
        assert framework.structure(again) == framework.structure(case.section) != ""

    # --------------------------------------------------------------------------------------------- input

    def test_targets_stay_as_they_were(
        self, detector: Detector, images_BCHW: Tensor, targets: list[dict[str, Tensor]]
    ) -> None:
        before = [{name: value.clone() for name, value in target.items()} for target in targets]
        detector(images_BCHW, targets)
        for target, old in zip(targets, before):
            assert target.keys() == old.keys()
            assert all(torch.equal(target[name], old[name]) for name in old)

    def test_bad_images_and_unknown_taps_are_refused(self, detector: Detector, images_BCHW: Tensor) -> None:
        with pytest.raises(DetectorError, match="divide bytes by 255"):
            detector(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
        with pytest.raises(DetectorError, match="Collate"):
            detector(torch.zeros(3, 64, 64))
        with pytest.raises(DetectorError, match="Did you mean 'class_logits'"):
            detector(images_BCHW, taps=("class_logit",))

    def test_bad_targets_are_refused_with_their_image(
        self, detector: Detector, images_BCHW: Tensor, targets: list[dict[str, Tensor]]
    ) -> None:
        with pytest.raises(DetectorError, match="2 targets were given for 3 images"):
            detector(images_BCHW, targets[:2])
        for box, label, remedy in (
            ([10.0, 10.0, 10.0, 20.0], 0, "Drop degenerate boxes"),
            ([10.0, float("nan"), 20.0, 20.0], 0, "Drop degenerate boxes"),
            ([10.0, 10.0, 20.0, 20.0], NUM_CLASSES, f"one of 0..{NUM_CLASSES - 1}"),
            ([10.0, 10.0, 20.0, 20.0], -1, f"one of 0..{NUM_CLASSES - 1}"),
        ):
            targets[2] = {"boxes": torch.tensor([box]), "labels": torch.tensor([label])}
            with pytest.raises(DetectorError, match=r"targets\[2\]") as caught:
                detector(images_BCHW, targets)
            assert remedy in str(caught.value)
        targets[0]["labels"] = targets[0]["labels"][:1]
        with pytest.raises(DetectorError, match=r"targets\[0\] has boxes of shape \(2, 4\) and 1 labels"):
            detector(images_BCHW, targets)


def _assert_levels_cover(outputs: DetectorOutputs, size_px: tuple[int, int], multiple_px: int) -> None:
    padded = tuple(-(-side // multiple_px) * multiple_px for side in size_px)
    assert outputs.input_size_px == padded
    for level, map_BCHW in outputs.pyramid.items():
        assert tuple(map_BCHW.shape[-2:]) == tuple(-(-side // outputs.strides[level]) for side in padded)


def _first_convolution(detector: Detector) -> Tensor:
    return next(weight for weight in detector.parameters() if weight.requires_grad and weight.ndim == 4)


def _limits(size_px: tuple[int, int]) -> Tensor:
    return torch.tensor([size_px[1], size_px[0]] * 2)


def _numbers(outputs: DetectorOutputs) -> dict[str, float]:
    assert outputs.losses is not None
    return {name: loss.item() for name, loss in outputs.losses.items()}


def _copy(detector: Detector) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in detector.state_dict().items()}


def _unless_non_finite(run: Callable[[], _T]) -> _T | None:
    """Return the result, or None if a ``NonFiniteError`` says that the weights diverged; another error is a bug."""
    try:
        return run()
    except NonFiniteError:
        return None
