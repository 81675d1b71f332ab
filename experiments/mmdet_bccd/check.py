"""Is the run's student plain MMDetection's? Loads it by ``init_detector`` and counts its AP on val and test.

    python -m autokd.mmcv_ops experiments/mmdet_bccd/check.py runs/mmdet_bccd ../shared/data/bccd

Prints the keys that are missing or unexpected, and for each split what ``results.json`` states (of that seed of the
winner whose weights the run hands over) beside the AP by ``inference_detector`` and pycocotools: with boxes as they
come, and clipped to the photograph as AutoKD clips them (MMDetection clips to the padded image).
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path

import numpy as np
import torch
from mmdet.apis import inference_detector, init_detector
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


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
        as_it_comes, clipped = _average_precision(model, data, split)
        stated = winner[f"{split}_ap"][best]
        print(f"{split}: stated {stated:.6f}, inference_detector {as_it_comes:.6f}, clipped {clipped:.6f}")


def _average_precision(model: torch.nn.Module, data: Path, split: str) -> tuple[float, float]:
    """COCO AP over all classes, of boxes as they come and clipped to the photograph; classes are matched by name."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(data / f"instances_{split}.json"))
    id_of = {category["name"]: category["id"] for category in truth.dataset["categories"]}
    ids = [id_of[name] for name in model.dataset_meta["classes"]]
    as_they_come, clipped = [], []
    for image in truth.dataset["images"]:
        found = inference_detector(model, str(data / "images" / image["file_name"])).pred_instances
        boxes = found.bboxes.double().numpy()
        limits = np.array([image["width"], image["height"]] * 2)
        for rows, xyxy in ((as_they_come, boxes), (clipped, boxes.clip(0, limits))):
            xywh = np.concatenate([xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]], axis=1)
            for box, score, label in zip(xywh.tolist(), found.scores.tolist(), found.labels.tolist()):
                rows.append({"image_id": image["id"], "category_id": ids[label], "bbox": box, "score": score})
    return _score(truth, as_they_come), _score(truth, clipped)


def _score(truth: COCO, rows: list[dict[str, object]]) -> float:
    with contextlib.redirect_stdout(io.StringIO()):
        measured = COCOeval(truth, truth.loadRes(rows), "bbox")
        measured.evaluate()
        measured.accumulate()
        measured.summarize()
    return float(measured.stats[0])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
