"""Our operators and presets against the losses of the package torchdistill, in values and in gradients.

Skipped where the package is absent: it is no dependency. To run this: ``pip install --no-deps torchdistill``. The two
were written independently, ours from the papers. Where the definitions differ by a constant, the peer's value is
multiplied by it, with the reason beside it. Not comparable, and why: its SPKDLoss divides the rows of the Gram matrix
by their sum of absolute values, where the paper has the Euclidean length (its ChSimLoss, fed with samples for channels,
has that: see "sp"); its CRDLoss is a binary classification against a memory, no InfoNCE; others (activation boundaries,
variational information, factor transfer with its paraphraser) are methods that we do not have.

Legend: B images, C channels, H x W cells, A candidate boxes of an image, K classes, S regions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import box_iou

from autokd.detector_outputs import DetectorOutputs
from autokd.distill import build_distiller
from autokd.presets import load_preset
from autokd.spec import DistillerSpec, Step, TermSpec, Weight
from tests.support import distill_cases as cases
from tests.support.numpy_formulas import interpolation_means

peer = pytest.importorskip("torchdistill.losses.mid_level", reason="the peer package torchdistill is not installed")

NUM_IMAGES = 3
TARGETS = cases.boxes(
    [[10, 8, 70, 60], [60, 50, 120, 90], [3, 5, 40, 90]], [[20, 20, 100, 80]], [[30, 10, 60, 50], [5, 60, 90, 92]]
)
TOLERANCE = 1e-5
"""Relative: PKD adds 1e-6 to each deviation."""
PeerLoss = Callable[[DetectorOutputs, DetectorOutputs], Tensor]


@dataclass(frozen=True)
class Comparison:
    name: str
    spec: DistillerSpec
    peer_loss: PeerLoss
    num_images: int = NUM_IMAGES


def form(source: str, *steps: str | Step) -> DistillerSpec:
    """Source, transforms and a distance, with weight 1."""
    *transforms, distance = (step if isinstance(step, Step) else Step.of(step) for step in steps)
    return DistillerSpec((TermSpec(Step.of(source), tuple(transforms), distance, Weight("absolute", 1.0)),))


def over_levels(loss: Callable[[Tensor, Tensor], Tensor]) -> PeerLoss:
    """The peer's loss of two maps, summed over the levels of the pyramid."""

    def total(student: DetectorOutputs, teacher: DetectorOutputs) -> Tensor:
        return sum(loss(s, t.detach()) for s, t in zip(student.pyramid.values(), teacher.pyramid.values()))

    return total


def of_logits(loss: Callable[[Tensor, Tensor], Tensor]) -> PeerLoss:
    """The peer's loss of the class logits, a candidate box a sample."""
    return lambda s, t: loss(s.class_logits.flatten(0, 1), t.class_logits.flatten(0, 1).detach())


def of_positive_logits(loss: Callable[[Tensor, Tensor], Tensor], by_level: bool = False) -> PeerLoss:
    """The same, of the candidates whose box, by the teacher, overlaps an object with an IoU of at least 0.5.

    With ``by_level`` the sum of the losses of each level's candidates, where a level has any.
    """

    def total(student: DetectorOutputs, teacher: DetectorOutputs) -> Tensor:
        chosen_BA = torch.stack(
            [
                (box_iou(boxes_A4, target["boxes"].to(boxes_A4)) >= 0.5).any(1)
                for boxes_A4, target in zip(teacher.boxes.detach(), targets_for(teacher))
            ]
        )
        assert 3 < chosen_BA.sum() < chosen_BA.numel()
        cells = [height * width for (height, width), _ in cases.LEVELS.values()]
        found = zip(*(x.split(cells if by_level else [sum(cells)], 1) for x in (
            student.class_logits, teacher.class_logits.detach(), chosen_BA
        )))  # fmt: skip
        return sum(loss(s_BAK[part_BA], t_BAK[part_BA]) for s_BAK, t_BAK, part_BA in found if part_BA.any())

    return total


def taps(student: Tensor, teacher: Tensor) -> tuple[dict, dict]:
    """The peer finds what a hook has recorded by module path and side of the module."""
    return {"tap": {"output": student}}, {"tap": {"output": teacher}}


PAIR = {"pair": {side: {"path": "tap", "io": "output"} for side in ("student", "teacher")}}
OUTPUTS = dict.fromkeys(("student_module_path", "teacher_module_path"), "tap") | dict.fromkeys(
    ("student_module_io", "teacher_module_io"), "output"
)


def kd(student_SK: Tensor, teacher_SK: Tensor, temperature: float = 1.0) -> Tensor:
    """KDLoss without labels, times tau^2: that factor of the paper it applies only beside a loss of labels."""
    loss = peer.KDLoss(**OUTPUTS, temperature=temperature, alpha=0.0)
    return temperature**2 * loss(*taps(student_SK, teacher_SK))


def dist(student_SK: Tensor, teacher_SK: Tensor, beta: float = 1.0, gamma: float = 1.0) -> Tensor:
    return peer.DISTLoss(**OUTPUTS, beta=beta, gamma=gamma)(*taps(student_SK, teacher_SK))


def correlation_gap(student_RM: Tensor, teacher_RM: Tensor) -> Tensor:
    """1 - the mean correlation of the rows, as DISTLoss has it."""
    return peer.DISTLoss(**OUTPUTS).inter_class_relation(student_RM, teacher_RM)


def correlation_of_channels(student_BCHW: Tensor, teacher_BCHW: Tensor) -> Tensor:
    """Of each channel over batch and cells."""
    return correlation_gap(*(x.transpose(0, 1).flatten(1) for x in (student_BCHW, teacher_BCHW)))


def pkd(student_BCHW: Tensor, teacher_BCHW: Tensor) -> Tensor:
    """PKD is 6 (1 - r); its standardizing is by the unbiased deviation, hence (M - 1) / M for M numbers a channel."""
    count = student_BCHW[:, 0].numel()
    return 6 * (count - 1) / count * correlation_of_channels(student_BCHW, teacher_BCHW)


def channel_correlation(student_BCHW: Tensor, teacher_BCHW: Tensor) -> Tensor:
    """DIST+ has the mean correlation over the channels of a cell; a distance is what is missing to 1."""
    loss = peer.DISTPlusLoss("", "", "", "", "", "", "", "")
    return 1 - loss.channel_relation(student_BCHW, teacher_BCHW)


def cwd(student_BCHW: Tensor, teacher_BCHW: Tensor) -> Tensor:
    """Each channel of each sample is a distribution over its cells: KDLoss with channels for samples; weight 10."""
    return 10 * kd(student_BCHW.flatten(0, 1).flatten(1), teacher_BCHW.flatten(0, 1).flatten(1))


def at(mode: str, factor: float = 1.0) -> PeerLoss:
    return over_levels(lambda s, t: factor * peer.ATLoss(PAIR, mode=mode)(*taps(s, t)))


def gram(student_BCHW: Tensor, teacher_BCHW: Tensor) -> Tensor:
    """FSP's matrix of a map with itself is the Gram matrix; compared by the mean square (FSP: lengths of columns)."""
    matrix = peer.FSPLoss.compute_fsp_matrix
    return functional.mse_loss(matrix(student_BCHW, student_BCHW), matrix(teacher_BCHW, teacher_BCHW))


def channel_similarity(student_BCHW: Tensor, teacher_BCHW: Tensor) -> Tensor:
    """ChSimLoss divides the sum of B C C squares by C B B; the mean by B C C: times B / C."""
    num_images, channels = student_BCHW.shape[:2]
    return num_images / channels * peer.ChSimLoss.batch_loss(student_BCHW, teacher_BCHW)


def sp(student_BCHW: Tensor, teacher_BCHW: Tensor) -> Tensor:
    """ChSimLoss with the B images for channels of one sample divides by B; the paper by B^2; weight 3000."""
    return (
        3000
        / len(student_BCHW)
        * peer.ChSimLoss.batch_loss(*(x.flatten(1)[None] for x in (student_BCHW, teacher_BCHW)))
    )


def congruence(student_BCHW: Tensor, teacher_BCHW: Tensor) -> Tensor:
    """CCKD with the bilinear kernel, without dividing by B^2: the distance of the samples' Gram matrices."""
    loss = peer.CCKDLoss("tap", "tap", {"type": "bilinear"}, reduction="sum")
    return loss(*taps(student_BCHW.flatten(1), teacher_BCHW.flatten(1)))


def unit_l1(student_RD: Tensor, teacher_RD: Tensor) -> Tensor:
    """FTLoss with p = 1: mean |s / ||s|| - t / ||t|||, over rows of length D."""
    loss = peer.FTLoss(p=1, paraphraser_path="tap", translator_path="tap")
    return loss(*taps(student_RD, teacher_RD))


def context(student_BCHW: Tensor, teacher_BCHW: Tensor) -> Tensor:
    """The hierarchical context loss with no pooled level left is the mean square."""
    loss = peer.HierarchicalContextLoss(**OUTPUTS, output_sizes=[])
    return loss(*taps((student_BCHW, None), teacher_BCHW))


def rkd(student: DetectorOutputs, teacher: DetectorOutputs) -> Tensor:
    """Embeddings: the objects' mean vectors on each level, the means of the interpolated map.

    The peer's means count the S pairs and the S (3 S - 2) triplets that hold an example twice, which are 0 on both
    sides; ours do not.
    """
    total = torch.zeros(())
    for level, stride in student.strides.items():
        student_SC, teacher_SC = (
            mean_vectors(x, stride) for x in (student.pyramid[level], teacher.pyramid[level].detach())
        )
        num = len(student_SC)
        distances = peer.RKDLoss("tap", "tap", 1.0, 0.0, "mean")(*taps(student_SC, teacher_SC))
        angles = peer.RKDLoss("tap", "tap", 0.0, 1.0, "mean")(*taps(student_SC, teacher_SC))
        total = total + 25 * distances * num / (num - 1) + 50 * angles * num**2 / ((num - 1) * (num - 2))
    return total


def mean_vectors(map_BCHW: Tensor, stride: int) -> Tensor:
    found = []
    for x_CHW, target in zip(map_BCHW, TARGETS):
        for x1, y1, x2, y2 in (target["boxes"] / stride).tolist():
            rows = torch.from_numpy(interpolation_means(y1, y2, x_CHW.shape[1], 1)[0])
            columns = torch.from_numpy(interpolation_means(x1, x2, x_CHW.shape[2], 1)[0])
            found.append(torch.einsum("h,w,chw->c", rows, columns, x_CHW))
    return torch.stack(found)


def by_channel(x_BCHW: Tensor) -> Tensor:
    return x_BCHW.flatten(0, 1).flatten(1)


def by_cell(x_BCHW: Tensor) -> Tensor:
    return x_BCHW.permute(0, 2, 3, 1).flatten(0, 2)


SQUARES, SOFT_2 = Step.of("channel_mean", power=2), Step.of("softmax_channels", temperature=2)
COMPARISONS = (
    Comparison("fitnet", load_preset("fitnet"), over_levels(context)),
    Comparison("cwd", load_preset("cwd"), over_levels(cwd)),
    Comparison("pkd", load_preset("pkd"), over_levels(pkd)),
    Comparison("sp", load_preset("sp"), over_levels(sp)),
    Comparison("gram", load_preset("gram"), over_levels(gram)),
    Comparison("rkd", load_preset("rkd"), rkd),
    # Weight 10 on a mean over the classes; the peer sums over them.
    Comparison(
        "kd",
        load_preset("kd"),
        of_positive_logits(lambda s, t: 10 / cases.NUM_CLASSES * kd(s, t, temperature=2), by_level=True),
    ),
    Comparison("dist", load_preset("dist"), of_positive_logits(dist)),
    # Weight 1000: the released beta. Mode "code" is the mean of squares of the released code.
    Comparison("at", load_preset("at"), at("code", factor=1000)),
    # The norm of one sample: over a batch, l2_norm is the norm of all samples together.
    Comparison(
        "at as its paper has it", form("feature_map", SQUARES, "l2_cells", "l2_norm"), at("paper"), num_images=1
    ),
    Comparison("kl of logits", form("class_logits", SOFT_2, "kl"), of_logits(lambda s, t: kd(s, t, temperature=2))),
    Comparison(
        "correlation within a candidate",
        form("class_logits", "softmax_channels", "pearson_channels"),
        of_logits(lambda s, t: dist(s, t, gamma=0)),
    ),
    Comparison(
        "correlation within a class",
        form("class_logits", "softmax_channels", "pearson"),
        of_logits(lambda s, t: dist(s, t, beta=0)),
    ),
    Comparison("correlation of channels", form("feature_map", "pearson"), over_levels(correlation_of_channels)),
    Comparison("correlation of cells", form("feature_map", "pearson_channels"), over_levels(channel_correlation)),
    Comparison(
        "cross-correlation",
        form("feature_map", "cross_correlation"),
        over_levels(lambda s, t: correlation_gap(by_channel(s), by_channel(t))),
    ),
    Comparison(
        "similarity of channels",
        form("feature_map", "gram_channels", "l2_cells", "l2"),
        over_levels(channel_similarity),
    ),
    Comparison("congruence of samples", form("feature_map", "gram_samples", "l2_norm"), over_levels(congruence)),
    Comparison(
        "unit channels",
        form("feature_map", "l2_cells", "l1"),
        over_levels(lambda s, t: unit_l1(by_channel(s), by_channel(t))),
    ),
    Comparison(
        "unit cells",
        form("feature_map", "l2_channels", "l1"),
        over_levels(lambda s, t: unit_l1(by_cell(s), by_cell(t))),
    ),
)


def targets_for(teacher: DetectorOutputs) -> list[dict[str, Tensor]]:
    """Objects where the teacher sees some, so that there are positive candidates."""
    height, width = teacher.input_size_px
    edge_4 = torch.tensor([width, height, width, height])
    inside = [torch.minimum(boxes_A4[3::20].detach().float(), edge_4).clamp_min(0) for boxes_A4 in teacher.boxes]
    return [{"boxes": boxes_M4, "labels": torch.arange(len(boxes_M4)) % cases.NUM_CLASSES} for boxes_M4 in inside]


@pytest.mark.parametrize("comparison", COMPARISONS, ids=lambda comparison: comparison.name)
def test_value_and_gradient_equal_the_peers(comparison):
    num = comparison.num_images
    student, teacher = (cases.outputs(num_images=num, seed=seed, dtype=torch.float64) for seed in (0, 1))
    targets = targets_for(teacher) if comparison.name in ("kd", "dist") else TARGETS[:num]
    distiller = build_distiller(comparison.spec, student, teacher, cases.NUM_CLASSES)
    ours, theirs = distiller(student, teacher, targets).total, comparison.peer_loss(student, teacher)
    assert ours.item() == pytest.approx(theirs.item(), rel=TOLERANCE)
    maps = list(student.pyramid.values())
    found, wanted = (torch.autograd.grad(value, maps, retain_graph=True) for value in (ours, theirs))
    greatest = max(gradient.abs().max().item() for gradient in wanted)
    assert greatest > 0
    torch.testing.assert_close(found, wanted, rtol=TOLERANCE, atol=TOLERANCE * greatest)


def contrast(num: int) -> tuple[Tensor, Tensor]:
    """Vectors of regions, (num, 8), of both sides."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, num, 8, generator=generator, dtype=torch.float64)
    return student.requires_grad_(), teacher


def own_partner_first(similarities_SS: Tensor) -> Tensor:
    """(S, 1, 1, S): each region's own partner moved to the first column, as the layout ``contrast`` has it."""
    num = len(similarities_SS)
    others_SX = similarities_SS[~torch.eye(num, dtype=torch.bool)].view(num, num - 1)
    return torch.cat([similarities_SS.diagonal()[:, None], others_SX], 1)[:, None, None]


def cosines(first_SD: Tensor, second_SD: Tensor) -> Tensor:
    return functional.normalize(first_SD) @ functional.normalize(second_SD).T


def assert_equal_with_gradients(ours: Tensor, theirs: Tensor, student_SD: Tensor) -> None:
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-9)
    found, wanted = (torch.autograd.grad(value, student_SD, retain_graph=True)[0] for value in (ours, theirs))
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-10)


def test_info_nce_equals_the_peers_contrastive_prediction():
    """AuxSSKDLoss: every fourth row is an example, the next three are its views; cross-entropy at temperature 1."""
    student_SD, teacher_SD = contrast(5)
    rows = [row for s, t in zip(student_SD, teacher_SD) for row in (t, s, s, s)]
    theirs = peer.AuxSSKDLoss("tap", "output")({}, {"tap": {"output": torch.stack(rows)}})
    contrasted = own_partner_first(cosines(student_SD, teacher_SD))
    features = cases.piece(contrasted, contrasted.detach(), layout="contrast")
    ours = cases.operator("distance", "info_nce", temperature=1.0)(features, cases.NO_INPUTS)
    assert_equal_with_gradients(ours, theirs, student_SD)


def test_smooth_contrastive_equals_the_peers_kl_of_similarities():
    student_SD, teacher_SD = contrast(5)
    similar = cosines(student_SD, teacher_SD), cosines(teacher_SD, teacher_SD)
    theirs = kd(*similar, temperature=0.1) / 0.1**2  # SEED has no factor tau^2
    features = cases.piece(*(own_partner_first(x) for x in similar), layout="contrast")
    ours = cases.operator("distance", "smooth_contrastive", temperature=0.1)(features, cases.NO_INPUTS)
    assert_equal_with_gradients(ours, theirs, student_SD)
