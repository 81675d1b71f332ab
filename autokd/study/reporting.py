"""The report of a run, with pictures that show the boxes of the teacher, of "none" and of the winner."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autokd.config import load_config
from autokd.data import DetectionDataset, load_datasets
from autokd.errors import AutoKDError
from autokd.jobs import NO_DISTILLATION, JobId, Outcome
from autokd.report import Boxes, ComparisonImage, write_report
from autokd.report.gather import SCORE_THRESHOLD
from autokd.report.pictures_file import save_pictures
from autokd.storage import Results, RunDirectory, StudyFacts, open_existing

NUM_IMAGES = 6
"""Number of pictures in a report."""
NUM_PICTURES = 48
"""Number of pictures of which pages can draw the boxes."""
TEACHER_DETECTIONS = "teacher_detections_test.json"
"""File in the run directory: the teacher's detections on test, as COCO results."""


def write_run_report(directory: str | Path, *, cache_dir: Path, storage_url: str | None = None) -> Path:
    """Write report.html of a run from what its directory and its study hold.

    A run that has not ended gets a report of its trials so far. If the data cannot be read any more, the pictures are
    left out and the report says so.

    Args:
        directory: run directory.
        cache_dir: folder of cached data.
        storage_url: address of the study's database; None: study.db in the run directory.

    Returns:
        Path of report.html.

    Raises:
        StorageError: if the directory holds no run, or the study cannot be opened.
    """
    run = RunDirectory.existing(directory)
    # A database of several runs has several studies.
    name = None if storage_url is None else run.read_config().get("name")
    study = open_existing(storage_url or run.study_path, name)
    results = Results.read(run.results_path) if run.results_path.exists() else None
    images: Sequence[ComparisonImage] = ()
    if results is not None:
        outcomes = StudyFacts(study).finished_outcomes()
        try:
            test = load_datasets(load_config(run.config_path).data, cache_dir, check=False).test
            drawable = comparison_images(test, run.path, results, outcomes, NUM_PICTURES)
            save_pictures(run.path, drawable, SCORE_THRESHOLD)
            images = [drawable[i] for i in _evenly(len(drawable), NUM_IMAGES)]
        except (AutoKDError, OSError) as error:
            results = results.model_copy(update={"notes": (*results.notes, f"The pictures are left out: {error}")})
    return write_report(run.path, study, results, images=images)


def comparison_images(
    test: DetectionDataset,
    directory: Path,
    results: Results,
    outcomes: Mapping[str, Outcome],
    count: int = NUM_IMAGES,
) -> list[ComparisonImage]:
    """Return some test images with the boxes of the teacher, "none", the best other and the winner (first seed).

    Args:
        test: the test images.
        directory: run directory.
        results: results of the run.
        outcomes: outcome of each full training, by the id of its job.
        count: number of images.
    """
    files: dict[str, Path] = {}
    teacher = directory / TEACHER_DETECTIONS
    if teacher.exists():
        files["teacher"] = teacher
    for name in dict.fromkeys((NO_DISTILLATION, *_best_other(results), results.winner)):
        entry = next((entry for entry in results.entries if entry.name == name), None)
        if entry is None:
            continue
        job_id = str(JobId("full", entry.digest, entry.seeds[0]))
        path = outcomes[job_id].file("detections_test", directory) if job_id in outcomes else None
        if path is not None:
            files[name] = path
    found = {name: _by_image(path) for name, path in files.items()}
    return [_picture(test, index, found) for index in _evenly(test.num_images, count)] if found else []


def _best_other(results: Results) -> tuple[str, ...]:
    """Return the name of the entry with the best mean val AP beside "none" and the winner, if there is one."""
    rated = {
        entry.name: sum(known) / len(known)
        for entry in results.entries
        if entry.name not in (NO_DISTILLATION, results.winner) and (known := [v for v in entry.val_ap if v is not None])
    }
    return (max(rated, key=lambda name: rated[name]),) if rated else ()


def _picture(
    dataset: DetectionDataset, index: int, found: Mapping[str, Mapping[int, list[dict[str, Any]]]]
) -> ComparisonImage:
    image_id = dataset.image_ids[index]
    label_of = {category: label for label, category in enumerate(dataset.category_ids)}
    coco = dataset.ground_truth()
    truth = [a for a in coco.loadAnns(coco.getAnnIds(imgIds=[image_id])) if not a.get("iscrowd")]
    return ComparisonImage(
        image=dataset.image_path(index),
        truth=_boxes(truth, label_of),
        detections={name: _boxes(by_image.get(image_id, []), label_of) for name, by_image in found.items()},
        classes=dataset.classes,
        caption=dataset.image_path(index).name,
        size_px=dataset.original_size(index),
    )


def _boxes(rows: Sequence[Mapping[str, Any]], label_of: Mapping[int, int]) -> Boxes:
    """Return COCO annotations or results (xywh px) as xyxy boxes in px."""
    corners = [[x, y, x + width, y + height] for x, y, width, height in (row["bbox"] for row in rows)]
    labels = [label_of[row["category_id"]] for row in rows]
    scores = [float(row["score"]) for row in rows if "score" in row]
    return Boxes(corners, labels, scores)


def _by_image(path: Path) -> dict[int, list[dict[str, Any]]]:
    """Return a file of COCO results by image id."""
    rows: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for row in json.loads(path.read_text(encoding="utf-8")):
        rows[row["image_id"]].append(row)
    return rows


def _evenly(count: int, wanted: int) -> list[int]:
    """Return ``wanted`` indices below ``count``, evenly spaced, the first and the last included."""
    return [round(i * (count - 1) / max(1, wanted - 1)) for i in range(min(count, wanted))]
