"""What is compared: a row for every preset and family, with its source, its inputs and its formula."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tests.distill.peers import (
    batches,
    crossed,
    fbkd,
    fgd,
    global_knowledge,
    maps,
    predictions,
    queries,
    regions,
    relations,
)
from tests.distill.peers.batches import Batch
from tests.distill.peers.complex_step import Array, Leaves

Value = Callable[[Batch, Leaves], Array]
NUM_EPOCHS, STEPS_PER_EPOCH = 4, 2


@dataclass(frozen=True)
class Peer:
    """A preset's independent computation.

    Args:
        preset: its name.
        family: the family of detectors whose terms are meant, as the preset's file calls it.
        source: repository, file and configuration that the formula and its weights are read from, and what differs.
        value: (steps, step, student's leaves) -> the loss of that step, memories filled by the steps before it.
        steps: the batches that are shown, in order; the last step's gradient is compared.
        leaves: what the gradient is taken by.
        variant: tells rows of one preset and family apart.
        begins_epochs: whether an epoch begins every ``STEPS_PER_EPOCH`` steps, for memories of epochs.
    """

    preset: str
    family: str
    source: str
    value: Callable[[Sequence[Batch], int, Leaves], Array]
    steps: tuple[Batch, ...]
    leaves: tuple[str, ...]
    variant: str = ""
    begins_epochs: bool = False

    @property
    def name(self) -> str:
        return ".".join(part for part in (self.preset, self.family, self.variant) if part)

    def of_last_step(self, student: Leaves) -> Array:
        last = self.steps[-1]
        return self.value(self.steps, len(self.steps) - 1, {**last.student, **student})

    def values(self) -> Array:
        """Return the loss of each step."""
        return np.array([self.value(self.steps, i, batch.student) for i, batch in enumerate(self.steps)])


def _single(formula: Value) -> Callable[[Sequence[Batch], int, Leaves], Array]:
    return lambda steps, step, student: formula(steps[step], student)


def _with_queue(formula: Callable[..., Array]) -> Callable[[Sequence[Batch], int, Leaves], Array]:
    return lambda steps, step, student: formula(steps[step], student, steps[:step])


def _with_prototypes(formula: Callable[..., Array]) -> Callable[[Sequence[Batch], int, Leaves], Array]:
    """Two steps of the first epoch, then one of the second; the weights' schedule follows the steps."""

    def value(steps: Sequence[Batch], step: int, student: Leaves) -> Array:
        last_epoch = tuple(steps[:STEPS_PER_EPOCH]) if step >= STEPS_PER_EPOCH else None
        return formula(steps[step], student, last_epoch, step / (NUM_EPOCHS * STEPS_PER_EPOCH))

    return value


MAPS = batches.maps_only()
NARROW = batches.maps_only(seed=1, student_channels=5)
PREDICTIONS = batches.with_predictions(MAPS)
NARROW_PREDICTIONS = batches.with_predictions(NARROW)
QUERIES = queries.with_queries(PREDICTIONS)
HEADS = batches.with_head_maps(MAPS)
NARROW_HEADS = batches.with_head_maps(NARROW, student_channels=5)

_LARGE = ([5.0, 3.0, 236.0, 230.0, 0], [20.0, 30.0, 150.5, 160.0, 1], [30.0, 36.0, 158.0, 166.0, 1],
          [150.0, 150.25, 170.0, 180.0, 2], [200.0, 10.0, 231.0, 77.0, 0])  # fmt: skip


def _of_regions(seed: int, student_channels: int = 8) -> Batch:
    """Two levels on an image whose largest object belongs to the coarser one, with proposals."""
    objects = (_LARGE, _LARGE[1:3], ())
    batch = batches.maps_only(seed, student_channels, 8, objects, (232, 240), {"p3": 8, "p4": 16})
    random = np.random.default_rng(seed + 50)
    corners = random.uniform(0, 150, size=(3, 12, 2))
    proposals = np.concatenate([corners, corners + random.uniform(10, 80, size=(3, 12, 2))], -1)
    proposals[0, 1], proposals[1, 3] = np.add(_LARGE[0][:4], 6.0), np.add(_LARGE[2][:4], -5.0)
    proposals[1, 10:] = np.nan
    return replace(batch, proposals=_quarters(proposals))


def _crowded(seed: int, student_channels: int) -> Batch:
    """Many instances of the first class, so that not all that are dense become prototypes."""
    random = np.random.default_rng(seed)
    corners = random.uniform(0, 70, size=(27, 2))
    labels = np.repeat([0.0, 1.0], [22, 5])  # a class of the last batch has no prototypes
    rows = np.column_stack([corners, corners + random.uniform(6, 45, size=(27, 2)), labels])
    rows = _quarters(rows)
    return batches.with_predictions(
        batches.maps_only(seed, student_channels, objects=(rows[:15], rows[15:], ())), seed + 1
    )


def _quarters(boxes: Array) -> Array:
    """Pixels that float32 holds exactly, as detectors' boxes have them."""
    return np.round(boxes * 4) / 4


def _of_prototypes(student_channels: int) -> tuple[Batch, ...]:
    last = PREDICTIONS if student_channels == 8 else NARROW_PREDICTIONS
    return _crowded(20, student_channels), _crowded(21, student_channels), last


REGIONS, NARROW_REGIONS = (tuple(_of_regions(seed, width) for seed in (30, 31, 32)) for width in (8, 5))
PROTOTYPES, NARROW_PROTOTYPES = _of_prototypes(8), _of_prototypes(5)
LEVELS, TWO_LEVELS = ("p3", "p4", "p5"), ("p3", "p4")
HEAD_MAPS = tuple(name for name in HEADS.student if "." in name)


def _of_maps(preset: str, family: str, source: str, formula: Value) -> list[Peer]:
    """Compare twice: with a student of the teacher's width, and with a narrower one."""
    return [
        Peer(preset, family, source, _single(formula), (MAPS,), LEVELS),
        Peer(preset, family, source, _single(formula), (NARROW,), LEVELS, "narrow"),
    ]


def _of_predictions(preset: str, family: str, source: str, formula: Value, *leaves: str) -> Peer:
    return Peer(preset, family, source, _single(formula), (PREDICTIONS,), leaves or ("class_logits",))


def _of_all_regions(preset: str, source: str, formula: Callable[..., Array], has_queue: bool) -> list[Peer]:
    wrap = _with_queue if has_queue else _single
    return [
        Peer(preset, "any", source, wrap(formula), steps if has_queue else steps[:1], TWO_LEVELS, variant)
        for steps, variant in ((REGIONS, ""), (NARROW_REGIONS, "narrow"))
    ]


def _of_global_knowledge(family: str, source: str, of_imitation: float) -> list[Peer]:
    return [
        Peer(
            "global_knowledge_labels" if labels else "global_knowledge",
            family,
            f"{_KNOWLEDGE}{source}",
            _with_prototypes(global_knowledge.global_knowledge(of_imitation, labels)),
            steps,
            (*LEVELS, "class_logits") if labels else LEVELS,
            variant,
            begins_epochs=True,
        )
        for labels in (False, True)
        for steps, variant in ((PROTOTYPES, ""), (NARROW_PROTOTYPES, "narrow"))
    ]


_FGD = "yzd-v/FGD mmdet/distillation/losses/fgd.py FeatureLoss; configs/distillers/fgd/"
_MGD = "yzd-v/MGD det/mmdet/distillation/losses/mgd.py FeatureLoss; det/configs/distillers/mgd/"
_DETKDS = "lliai/DetKDS mmdet/distillation/losses/auto_detkd.py, operations.py; configs/distillers/detkds/"
_CELLS = ". Differs: a box holds the cells whose centers it holds, no margin"
_FBKD = "FBKD, ICLR 2021, section 3; open-mmlab/mmrazor losses/fbkd_loss.py, connectors/fbkd_connector.py; release, "
_PKD = "open-mmlab/mmrazor mmrazor/models/losses/pkd_loss.py PKDLoss; configs/distill/mmdet/pkd/"
_SCORES = "ultralytics/ultralytics nn/distill_model.py loss_sl2: dis 6. Differs: without the factor of the images"
_LD = "HikariTJU/LD mmdet/models/dense_heads/ld_head.py "
_RT_DETR_V4 = "RT-DETRv4, arXiv:2510.25257, section 3.2: cosine on P5; weight 1 is ours"
_CROSSKD = "jbwang1997/CrossKD mmdet/models/detectors/crosskd_retinanet.py, crosskd_fcos.py; configs/crosskd/"
_DIVISOR = ". Differs: divisor by the teacher's top probabilities, detached factor"
_POSITIVE = ". Differs: positive by the teacher's IoU >= 0.5"
_GDETKD = "G-DetKD, arXiv:2108.07482, section "
_KNOWLEDGE = (
    "hikvision-research/DAVAR-Lab-ML ECCV22_Distilling_Object_Detectors_with_Global_Knowledge: "
    "prototype_generation_module.py, kd_loss.py. Differs: ground truth for proposals, exact means and cells whose "
    "centers a box holds, the most reliable of overlapping boxes, decay by steps; "
)

PEERS: tuple[Peer, ...] = (
    *_of_maps("fitnet", "any", "FitNets, arXiv:1412.6550, eq. 3, weight 1", maps.over_levels(maps.fitnet)),
    *_of_maps("at", "any", "szagoruyko/attention-transfer utils.py at_loss, beta 1000", maps.over_levels(maps.at)),
    *_of_maps("sp", "any", "HobbitLong/RepDistiller distiller_zoo/SP.py; gamma 3000", maps.over_levels(maps.sp)),
    *_of_maps("gram", "any", "arXiv:1508.06576, eqs. 3 and 4, times 4; no release", maps.over_levels(maps.gram)),
    *_of_maps("cwd", "any", "open-mmlab/mmrazor mmrazor/models/losses/cwd.py; configs/distill/mmdet/cwd: tau 1, 10",
              maps.over_levels(maps.cwd)),
    *_of_maps("pkd", "one_stage", f"{_PKD}pkd_fpn_retina_x101_retina_r50_2x_coco.py: 10",
              maps.over_levels(maps.pkd(10))),
    *_of_maps("pkd", "two_stage", f"{_PKD}pkd_fpn_faster-rcnn_r101_faster-rcnn_r50_2x_coco.py: 6",
              maps.over_levels(maps.pkd(6))),
    *_of_maps("mgd", "one_stage", f"{_MGD}retina_rx101_64x4d_distill_retina_r50_fpn_2x_coco.py: 2e-5, 0.65",
              maps.over_levels(maps.mgd(2e-5, 0.65))),
    *_of_maps("mgd", "two_stage", f"{_MGD}cascade_mask_rcnn_rx101_32x4d_distill_faster_rcnn_r50_fpn_2x_coco.py: 5e-7, "
              "0.45. Differs: all levels", maps.over_levels(maps.mgd(5e-7, 0.45))),
    *_of_maps("fgd", "anchor_based", f"{_FGD}fgd_retina_rx101_64x4d_distill_retina_r50_fpn_2x_coco.py{_CELLS}",
              fgd.fgd(1e-3, 5e-4, 5e-4, 5e-6, 0.5)),
    *_of_maps("fgd", "anchor_free", f"{_FGD}fgd_fcos_r101_distill_fcos_r50_2x_coco.py{_CELLS}",
              fgd.fgd(1.6e-3, 8e-4, 8e-4, 8e-6, 0.8)),
    *_of_maps("fgd", "two_stage", f"{_FGD}fgd_faster_rcnn_r101_fpn_2x_distill_faster_rcnn_r50_fpn_2x_coco.py{_CELLS}, "
              "all levels",
              fgd.fgd(5e-5, 2.5e-5, 5e-5, 5e-7, 0.5)),
    *_of_maps("detkds", "anchor_based", f"{_DETKDS}retina_r101_distill_retina_r50_fpn_2x_coco.py{_CELLS}",
              fgd.detkds(6, "patches")),
    *_of_maps("detkds", "anchor_free", f"{_DETKDS}fcos_r101_distill_fcos_r50_2x_coco.py{_CELLS}; one mask for both",
              fgd.detkds(5, "masked")),
    *_of_maps("detkds", "two_stage", f"{_DETKDS}faster_rcnn_r101_distill_faster_rcnn_r50_fpn_2x_coco.py: what its "
              "distiller adds. Differs: all levels", fgd.detkds(2, None)),
    *_of_maps("fbkd", "one_stage", f"{_FBKD}one-stage: 4e-4, 0.02, 4e-4, T 0.5. Differs: see fbkd.fbkd",
              fbkd.fbkd(4e-4, 0.02, 4e-4, 0.5)),
    *_of_maps("fbkd", "two_stage", f"{_FBKD}two-stage: 7e-5, 4e-3, 7e-5, T 0.1. Differs: see fbkd.fbkd",
              fbkd.fbkd(7e-5, 4e-3, 7e-5, 0.1)),
    *_of_maps("rkd", "any", "lenscloth/RKD metric/loss.py RkdDistance 25, RKdAngle 50. Differs: means over what "
              "differs; vectors are means over objects", relations.rkd),
    Peer("score_weighted", "one_stage", _SCORES, _single(maps.score_weighted), (PREDICTIONS,), LEVELS),
    Peer("score_weighted", "one_stage", _SCORES, _single(maps.score_weighted), (NARROW_PREDICTIONS,), LEVELS, "narrow"),
    Peer("mlkd", "any", "penghui-yang/L2D criterion/distiller_zoo/logits_based/mld.py, le_based/huber_dist.py; "
         f"configs/coco/resnet101_to_resnet34_l2d.py{_POSITIVE}; pairs of all objects", _single(relations.mlkd),
         (NARROW_PREDICTIONS,), (*LEVELS, "class_logits")),
    _of_predictions("kd", "one_stage", f"{_LD}loss_kd: 10, T 2{_POSITIVE}", predictions.kd),
    _of_predictions("dkd", "two_stage", "megvii-research/mdistiller mdistiller/distillers/DKD.py dkd_loss, "
                    f"detection/model/rcnn.py: alpha 1, beta 0.25, T 1{_POSITIVE}, no background", predictions.dkd),
    _of_predictions("dist", "one_stage", "hunto/MasKD mmrazor/mmrazor/models/losses/dist_kd.py: beta 1, gamma 1"
                    f"{_POSITIVE}, softmax", predictions.dist),
    _of_predictions("logit_standardization", "any", "sunshangquan/logit-standardization-KD "
                    f"mdistiller/distillers/KD.py: 9, T 2{_POSITIVE}", predictions.logit_standardization),
    _of_predictions("ld", "one_stage", f"{_LD}loss_ld: 0.25, T 10{_POSITIVE}; the teacher's top score", predictions.ld,
                    "edge_logits"),
    _of_predictions("bckd", "one_stage", "TinyTigerPan/BCKD mmdet/models/dense_heads/ld_head.py loss_kd 1, "
                    "loss_score_kd 4. Differs: see predictions.bckd", predictions.bckd, "class_logits", "boxes"),
    *(Peer("crosskd", family, f"{_CROSSKD}{config}{_DIVISOR}", _single(formula), (steps,), HEAD_MAPS, variant)
      for family, config, formula in (
          ("anchor_based", "crosskd_r50_retinanet_r101_fpn_1x_coco.py", crossed.crosskd(1, 1, True)),
          ("anchor_free", "crosskd_r50_fcos_r101-2x-ms_caffe_fpn_gn-head_2x_ms_coco.py; 1 - IoU for -log IoU",
           crossed.crosskd(0.4, 0.75, False)))
      for steps, variant in ((HEADS, ""), (NARROW_HEADS, "narrow"))),
    *_of_all_regions("g_detkd_sgfi", f"{_GDETKD}3.2, eqs. 1 to 3; LutingWang/todd SGFILoss. Differs: softmax over the "
                     "levels", regions.sgfi, has_queue=False),
    *_of_all_regions("g_detkd_contrastive", f"{_GDETKD}3.3, eqs. 4 and 5; LutingWang/todd CKDLoss. Differs: the "
                     "partner is in the denominator", regions.contrastive, has_queue=True),
    *_of_all_regions("g_detkd", f"{_GDETKD}3; weights 1 and 1", regions.g_detkd, has_queue=True),
    *_of_global_knowledge("one_stage", "kd_one_stage_strategy.py: 1, 4, 5, 1", 1.0),
    Peer("global_knowledge_labels", "one_stage", f"{_KNOWLEDGE}the first step, whose own instances are prototypes",
         _with_prototypes(global_knowledge.global_knowledge(1.0, True)), NARROW_PROTOTYPES[:1],
         (*LEVELS, "class_logits"), "first_step", begins_epochs=True),
    Peer("feature_kd", "any", _RT_DETR_V4, _single(queries.feature_kd), (MAPS,), ("p5",)),
    Peer("feature_kd", "any", _RT_DETR_V4, _single(queries.feature_kd), (NARROW,), ("p5",), "narrow"),
    *_of_maps("lightly", "any", "lightly-ai/lightly-train _methods/distillationv2: mean squared error. Differs: both "
              "sides of length 1", maps.over_levels(queries.lightly)),
    Peer("kd_detr", "any", "KD-DETR, arXiv:2211.08071, sections 3.3 and 3.4; weights of DETR. Differs: see the preset",
         _single(queries.kd_detr), (QUERIES,), ("shared_logits", "shared_boxes")),
    Peer("d_fine_localization", "any", "Peterande/D-FINE loss_ddf: 1.5, T 5. Differs: the teacher's last layer for the "
         "own, weights by the teacher's top probability", _single(queries.d_fine_localization), (QUERIES,),
         ("layer_edge_logits",)),
    *_of_global_knowledge("two_stage", "configs/faster_rcnn_coco_kd_config.py: imitation divided by 5 levels", 0.2),
)  # fmt: skip
