"""Export of a trained detector: ONNX, TorchScript, safetensors, each compared with the detector itself.

Files of all formats say their classes and the preparation of images: ONNX in ``metadata_props``, TorchScript in the
extra file ``autokd.json``, safetensors in the header.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from autokd.data.views import PAD_RGB
from autokd.detectors import Detections, build_detector, framework_of, load_weights
from autokd.detectors.inference_graph import InferenceGraph
from autokd.errors import DetectorError, needs_extra
from autokd.inference.comparison import Differences, compare
from autokd.inference.latency import Latency, median_ms
from autokd.inference.safetensors_file import write_safetensors
from autokd.inference.trained import TrainedDetector

ExportFormat = Literal["onnx", "torchscript", "safetensors"]
FORMATS: tuple[ExportFormat, ...] = get_args(ExportFormat)
SUFFIXES: dict[ExportFormat, str] = {"onnx": ".onnx", "torchscript": ".torchscript.pt", "safetensors": ".safetensors"}
INPUT_NAME, OUTPUT_NAMES = "image", ("boxes", "scores", "labels")
OPSET = 20
"""Version of ONNX's operators."""
EXTRA_FILE = "autokd.json"
"""File within a TorchScript archive that says classes and preparation."""
EXAMPLE_SEED = 0

Detect = Callable[[Tensor], Detections]
"""From one image, (1, 3, H, W), to its detections, best first."""


@dataclass(frozen=True)
class ExportedModel:
    """An exported file and its measurements.

    Args:
        format: format of the file.
        path: the file.
        size_bytes: its size.
        differences: greatest differences to the detector itself.
        latency: time of one image.
    """

    format: ExportFormat
    path: Path
    size_bytes: int
    differences: Differences
    latency: Latency

    def to_data(self) -> dict[str, Any]:
        """Return the measurements as plain data."""
        return {
            "format": self.format,
            "path": str(self.path),
            "size_bytes": self.size_bytes,
            "differences": self.differences.to_data(),
            "within_tolerance": self.differences.is_within_tolerance,
            "latency_ms": self.latency.exported_ms,
            "eager_latency_ms": self.latency.eager_ms,
        }


def export_model(
    trained: TrainedDetector, format_: ExportFormat, path: Path, images: Sequence[Tensor], *, repeats: int = 10
) -> ExportedModel:
    """Write a detector in one format, and compare the file with the detector.

    Args:
        trained: the detector; it is moved to the CPU.
        format_: format of the file.
        path: the file.
        images: (3, H, W) images in the network's input, to compare on; at least one.
        repeats: images that each latency is the median of.

    Returns:
        The file, with differences and latencies.

    Raises:
        DetectorError: if the detector has no form for the format.
        MissingExtraError: if a package of the format is not installed.
    """
    trained.detector.cpu().eval()
    path.parent.mkdir(parents=True, exist_ok=True)
    exported = _WRITERS[format_](trained, path)
    eager: Detect = lambda image_1CHW: trained.detector.detect(image_1CHW)[0]  # noqa: E731
    differences = compare(eager, exported, images)
    first_1CHW = images[0][None]
    latency = Latency(*median_ms([lambda: eager(first_1CHW), lambda: exported(first_1CHW)], repeats))
    return ExportedModel(format_, path, path.stat().st_size, differences, latency)


def description(trained: TrainedDetector) -> dict[str, str]:
    """Return what a program needs to use an exported file, as texts.

    Args:
        trained: the detector.
    """
    height, width = trained.image_size_px
    return {
        "classes": json.dumps(list(trained.classes), ensure_ascii=False),
        "category_ids": json.dumps(list(trained.card.category_ids)),
        "image_size_px": json.dumps([height, width]),
        "pad_rgb": json.dumps(PAD_RGB),
        "input": "one image, (1, 3, height, width) float32 RGB in [0, 1], scaled with its aspect ratio kept and padded "
        "at the right and the bottom with pad_rgb / 255",
        "outputs": "boxes (D, 4) xyxy px of the input, scores (D,), labels (D,); a row with score 0 and label -1 is "
        "none",
        "detector": trained.detector.architecture,
    }


def _graph(trained: TrainedDetector) -> InferenceGraph:
    section = trained.card.detector
    return framework_of(section).inference_graph(section, trained.detector, trained.image_size_px).eval()


def _example(trained: TrainedDetector) -> Tensor:
    generator = torch.Generator().manual_seed(EXAMPLE_SEED)
    return torch.rand(1, 3, *trained.image_size_px, generator=generator)


def _write_onnx(trained: TrainedDetector, path: Path) -> Detect:
    with needs_extra("onnx, onnxscript or onnxruntime", "export"):
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401 - torch's exporter needs it, and says so less clearly
    program = _exported_program(trained)
    assert program is not None
    for name, text in description(trained).items():
        program.model.metadata_props[name] = text
    program.save(str(path), external_data=False)
    onnx.checker.check_model(str(path))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda image_1CHW: _present(
        *(torch.from_numpy(values) for values in session.run(list(OUTPUT_NAMES), {INPUT_NAME: image_1CHW.numpy()}))
    )


def _exported_program(trained: TrainedDetector) -> Any:
    graph, example = _graph(trained), _example(trained)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch about its own deprecated calls
            return torch.onnx.export(
                graph,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT_NAME],
                output_names=list(OUTPUT_NAMES),
                external_data=False,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise DetectorError(
            f"{trained.detector.architecture}: torch's ONNX exporter cannot take this detector: "
            f"{str(error).strip().splitlines()[0]}. Export it as torchscript or safetensors."
        ) from error


def _write_torchscript(trained: TrainedDetector, path: Path) -> Detect:
    graph, example = _graph(trained), _example(trained)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of shapes that become constants, as they are meant to
        traced = torch.jit.trace(graph, (example,), check_trace=False)
        torch.jit.save(traced, str(path), _extra_files={EXTRA_FILE: json.dumps(description(trained))})
        loaded = torch.jit.load(str(path))

    def detect(image_1CHW: Tensor) -> Detections:
        with torch.no_grad():
            return _present(*loaded(image_1CHW))

    return detect


def _write_safetensors(trained: TrainedDetector, path: Path) -> Detect:
    write_safetensors(path, trained.detector.plain_state_dict(), trained.card)
    card = trained.card
    rebuilt = build_detector(card.detector, len(card.classes), card.image_size_px, card.classes)
    load_weights(rebuilt, path)
    rebuilt.eval()
    return lambda image_1CHW: rebuilt.detect(image_1CHW)[0]


def _present(boxes_D4: Tensor, scores_D: Tensor, labels_D: Tensor) -> Detections:
    """Drop the rows without a detection."""
    there = scores_D > 0
    return {"boxes": boxes_D4[there], "scores": scores_D[there], "labels": labels_D[there]}


_WRITERS: dict[ExportFormat, Callable[[TrainedDetector, Path], Detect]] = {
    "onnx": _write_onnx,
    "torchscript": _write_torchscript,
    "safetensors": _write_safetensors,
}
