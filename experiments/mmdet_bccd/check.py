"""Is the run's student plain MMDetection's? Loads it by ``init_detector`` and counts its AP on val and test.

    python -m autokd.mmcv_ops experiments/mmdet_bccd/check.py runs/mmdet_bccd ../shared/data/bccd

Prints the keys that are missing or unexpected, and for each split what ``results.json`` states (of that seed of the
winner whose weights the run hands over) beside the AP by ``inference_detector`` and pycocotools: of the files, and of
the pixels that AutoKD makes of them (it decodes JPEG files of more than twice the frame's size at a fraction of it).
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from mmdet.apis import inference_detector, init_detector
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from autokd.data.images import read_pixels

FRAME_PX = (120, 160)


def main(run: Path, data: Path) -> None:
    torch.set_num_threads(1)
    results = json.loads((run / "results.json").read_text())
    winner = next(entry for entry in results["entries"] if entry["name"] == results["winner"])
    best = winner["val_ap"].index(max(winner["val_ap"]))
    model = init_detector(str(run / "student.py"), str(run / "student.pth"), device="cpu")
    own, given = (set(weights) for weights in (model.state_dict(), torch.load(run / "student.pth")["state_dict"]))
    print(f"{len(own)} keys; missing: {sorted(own - given)}, unexpected: {sorted(given - own)}")
    print(f"{winner['name']}, seed {winner['seeds'][best]}")
    for split in ("val", "test"):
        files, pixels = _average_precision(model, data, split)
        stated = winner[f"{split}_ap"][best]
        print(f"{split}: stated {stated:.6f}, inference_detector of files {files:.6f}, of AutoKD's pixels {pixels:.6f}")


def _average_precision(model: torch.nn.Module, data: Path, split: str) -> tuple[float, float]:
    """COCO AP over all classes, of the files and of AutoKD's pixels."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(data / f"instances_{split}.json"))
    images = truth.dataset["images"]
    paths = [data / "images" / image["file_name"] for image in images]
    bgr_HWC = (
        read_pixels(path, (image["height"], image["width"]), FRAME_PX)[::-1].transpose(1, 2, 0)
        for path, image in zip(paths, images)
    )
    # inference_detector changes the pipeline of the model that it is given an array for.
    of_pixels = _detections(copy.deepcopy(model), truth, map(np.ascontiguousarray, bgr_HWC), FRAME_PX[1])
    return _score(truth, _detections(model, truth, map(str, paths))), _score(truth, of_pixels)


def _detections(
    model: torch.nn.Module, truth: COCO, sources: Iterable[str | np.ndarray], width: int | None = None
) -> list[dict[str, object]]:
    """COCO results, classes matched by name. width: of the sources in pixels; None: as annotated."""
    id_of = {category["name"]: category["id"] for category in truth.dataset["categories"]}
    ids = [id_of[name] for name in model.dataset_meta["classes"]]
    rows: list[dict[str, object]] = []
    for image, source in zip(truth.dataset["images"], sources):
        found = inference_detector(model, source).pred_instances
        xyxy = found.bboxes.double().numpy() * (image["width"] / (width or image["width"]))
        xywh = np.concatenate([xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]], axis=1)
        for box, score, label in zip(xywh.tolist(), found.scores.tolist(), found.labels.tolist()):
            rows.append({"image_id": image["id"], "category_id": ids[label], "bbox": box, "score": score})
    return rows


def _score(truth: COCO, rows: list[dict[str, object]]) -> float:
    with contextlib.redirect_stdout(io.StringIO()):
        measured = COCOeval(truth, truth.loadRes(rows), "bbox")
        measured.evaluate()
        measured.accumulate()
        measured.summarize()
    return float(measured.stats[0])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
