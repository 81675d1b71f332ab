"""Detection sets: generated or in COCO's format, as samples, replayable views and batches.

``loading`` makes the splits of a configuration, ``content`` counts classes and objects, ``dataset`` is one split.
``parsed_file`` and ``annotation_file`` read the JSON, ``box_form`` looks at its numbers, ``columns`` and
``annotations`` hold what is in it. ``images``, ``jpeg``, ``depth`` and ``pixel_readers`` read image files,
``image_files`` what they are; ``array_store`` keeps both for all processes. ``convert`` reads other formats
(``voc_layout``, ``yolo_layout``). ``sharing`` compares splits. ``orientation`` gives each image its frame.
``geometry``, ``views``, ``view_plan`` and ``mixing`` hold the maps between pixels, ``subsets``, ``batches`` and
``sample`` what a training reads. ``shapes``, ``scene`` and ``textures`` make the generated set.
"""

from autokd.data.batches import Batch, epoch_batches, view_numbers
from autokd.data.content import content_of
from autokd.data.dataset import DetectionDataset
from autokd.data.geometry import BoxMap, Letterbox, letterbox
from autokd.data.loading import Datasets, StoredSplit, load_datasets, load_split
from autokd.data.network_input import NetworkInput, network_input
from autokd.data.report import DataReport
from autokd.data.sample import HostBatch, Sample, Target, collate, stack_samples
from autokd.data.shapes import shapes_digest, write_shapes
from autokd.data.subsets import k_center_indices, stratified_indices, subset_indices, subset_size
from autokd.data.view_plan import ViewPlan, plan_views
from autokd.data.views import IDENTITY, Color, Mosaic, View, apply_view

__all__ = [
    "Batch",
    "BoxMap",
    "DataReport",
    "Datasets",
    "DetectionDataset",
    "IDENTITY",
    "Letterbox",
    "Sample",
    "StoredSplit",
    "Target",
    "View",
    "Color",
    "Mosaic",
    "NetworkInput",
    "ViewPlan",
    "apply_view",
    "collate",
    "HostBatch",
    "stack_samples",
    "content_of",
    "epoch_batches",
    "k_center_indices",
    "letterbox",
    "load_datasets",
    "load_split",
    "network_input",
    "plan_views",
    "shapes_digest",
    "stratified_indices",
    "subset_indices",
    "subset_size",
    "view_numbers",
    "write_shapes",
]
