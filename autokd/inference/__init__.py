"""A trained detector outside of a run: its boxes on images and videos, and its export to other programs.

``trained`` finds a detector with its weights, ``frames`` reads images and videos, ``predictions`` detects, ``outputs``
writes pictures, COCO JSON and CSV. ``exporting`` writes ONNX, TorchScript and safetensors, ``comparison`` holds them
against the detector itself, ``latency`` times both.
"""

from autokd.inference.comparison import TOLERANCE_PX, TOLERANCE_SCORE
from autokd.inference.export_run import Export, TeacherCost, export_run
from autokd.inference.exporting import FORMATS, ExportedModel, ExportFormat, export_model
from autokd.inference.frames import Frame, find_sources, frames_of
from autokd.inference.outputs import OUTPUTS, OutputName, open_outputs
from autokd.inference.predict_run import predict_to_files
from autokd.inference.predictions import Prediction, predictions
from autokd.inference.trained import Side, TrainedDetector, load_trained

__all__ = [
    "FORMATS",
    "OUTPUTS",
    "TOLERANCE_PX",
    "TOLERANCE_SCORE",
    "Export",
    "ExportFormat",
    "ExportedModel",
    "Frame",
    "OutputName",
    "Prediction",
    "Side",
    "TeacherCost",
    "TrainedDetector",
    "export_model",
    "export_run",
    "find_sources",
    "frames_of",
    "load_trained",
    "open_outputs",
    "predict_to_files",
    "predictions",
]
