"""The tap ``proposals``: the few boxes of each image in which a detector itself sees an object.

Legend: B images, A candidate boxes of an image, R proposals of an image, n boxes of a whole batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import batched_nms, clip_boxes_to_image

NUM_PROPOSALS = 32
"""R, for every image; fewer boxes are filled up with rows of NaN."""
_CANDIDATES_PER_PROPOSAL = 8
"""Boxes a proposal that enter suppression, the best ones: neighboring cells predict the same object."""


@torch.no_grad()
def best_boxes(boxes_BA4: Tensor, scores_BA: Tensor, image_size_px: tuple[int, int], iou_threshold: float) -> Tensor:
    """Return each image's best boxes after class-agnostic suppression, clipped, best first, without gradient.

    Args:
        boxes_BA4: candidates, xyxy in pixels.
        scores_BA: their scores; the order alone counts.
        image_size_px: (height, width) that boxes are clipped to.
        iou_threshold: IoU above which only the better one of two boxes stays.

    Returns:
        (B, R, 4) xyxy in pixels. Empty boxes and those of diverged weights are left out; rows of NaN fill up.
    """
    num_candidates = min(scores_BA.shape[1], NUM_PROPOSALS * _CANDIDATES_PER_PROPOSAL)
    scores_BN, index_BN = scores_BA.detach().topk(num_candidates, dim=1)
    boxes_BN4 = boxes_BA4.detach().gather(1, index_BN[..., None].expand(-1, -1, 4))
    boxes_BN4 = clip_boxes_to_image(boxes_BN4, image_size_px)
    # ``a > b`` and not ``~(a <= b)``: any comparison with NaN is false, and NaN has to count as empty.
    is_box_BN = (boxes_BN4[..., 2:] > boxes_BN4[..., :2]).all(dim=2) & scores_BN.isfinite()
    image_n = is_box_BN.nonzero()[:, 0]
    boxes_n4 = boxes_BN4[is_box_BN]
    kept = batched_nms(boxes_n4, scores_BN[is_box_BN], image_n, iou_threshold)
    kept = kept.sort().values  # back to the order of the candidates: by image, then by falling score
    return _padded(boxes_n4[kept], image_n[kept], len(boxes_BA4))


def _padded(boxes_n4: Tensor, image_n: Tensor, num_images: int) -> Tensor:
    """Return boxes, which are in the order of their images, as (B, R, 4)."""
    counts_B = torch.bincount(image_n, minlength=num_images)
    rank_n = torch.arange(len(image_n), device=image_n.device) - (counts_B.cumsum(0) - counts_B)[image_n]
    padded_BR4 = boxes_n4.new_full((num_images, NUM_PROPOSALS, 4), torch.nan)
    is_taken_n = rank_n < NUM_PROPOSALS
    padded_BR4[image_n[is_taken_n], rank_n[is_taken_n]] = boxes_n4[is_taken_n]
    return padded_BR4


def stacked(boxes_by_image: Sequence[Tensor]) -> Tensor:
    """Return lists of boxes, best first, as (B, R, 4) filled up with rows of NaN, without gradient."""
    boxes_n4 = torch.cat([boxes.detach() for boxes in boxes_by_image])
    counts_B = torch.tensor([len(boxes) for boxes in boxes_by_image], device=boxes_n4.device)
    images_B = torch.arange(len(boxes_by_image), device=boxes_n4.device)
    return _padded(boxes_n4, images_B.repeat_interleave(counts_B), len(boxes_by_image))
