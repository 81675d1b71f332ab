"""Search, distill, plan and evaluate: the verbs of AutoKD as functions that return values.

The command line calls these functions, and its commands of the same names do nothing else but read options and print.
Each function imports what it runs, so that ``import autokd`` loads neither torch nor Optuna.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from autokd.config import RunConfig
    from autokd.inference import Export
    from autokd.spec import DistillerSpec
    from autokd.storage import Results
    from autokd.study import Bill, Observer

RUNS = Path("runs")
"""Folder of run directories, seen from the working directory."""
CACHE = Path(".autokd_cache")
"""Folder of trained teachers and cached features, unless the environment variable AUTOKD_CACHE names another."""


def search(
    config: RunConfig | Mapping[str, Any] | str | Path,
    *,
    run_dir: str | Path | None = None,
    cache_dir: str | Path | None = None,
    storage_url: str | None = None,
    resume: bool = False,
    observer: Observer | None = None,
    forecast_s: float = 0.0,
    log: Sequence[str] = (),
) -> Results:
    """Search the distillation loss for a pair of detectors, and train the student with the best one in full.

    The search evaluates distillers by short proxy trainings, lets the best of them race over seeds, and trains the
    winner in full beside the baselines, with the same recipe and seeds. The run directory then holds student.pt,
    best_distiller.yaml, results.json, report.html and the Optuna study. Ctrl-C ends the run; what has finished is
    kept, and ``resume=True`` continues it.

    Example::

        results = autokd.search("kd.yaml")
        print(results.winner, results.entry("searched").test_ap)

    Args:
        config: configuration: the path of a config file, its YAML text, the same as a mapping, or a ``RunConfig``.
            Paths inside it are seen from the working directory.
        run_dir: folder of the run, new or empty unless ``resume``; None: ``runs/NAME`` with the configuration's name.
        cache_dir: folder of trained teachers and cached features, which runs share; None: the environment variable
            AUTOKD_CACHE, or ``.autokd_cache``.
        storage_url: address of the study's database, such as "postgresql+psycopg://user@host/db"; None: study.db in
            the run directory.
        resume: continue the run in ``run_dir`` with the same configuration (``runtime`` and ``search.trials`` may
            change).
        observer: receiver of progress; None: progress is discarded.
        forecast_s: seconds to measure before the start, roughly, for a line of what the run costs; a run that cannot
            fit into the memory is then refused. 0: neither. A disk that is too small is refused in any case.
        log: trackers that receive curves, parameters and results: "tensorboard", "mlflow", "wandb", "csv".

    Returns:
        The content of results.json: an entry for "none", each baseline and the searched distiller, with val and test AP
        (COCO AP in [0, 1]) for each seed, and the winner, chosen on val.

    Raises:
        ConfigError: if the configuration is wrong; the message names file, line, the value found and those allowed.
        DataError: if the data set is broken.
        DetectorError: if a detector cannot be built or its weights do not fit.
        StorageError: if ``run_dir`` or the database belongs to another run, or cannot be written.
        RuntimeUnavailableError: if the chosen runtime cannot run here.
        AutoKDError: if the student cannot be trained even without distillation.
    """
    from autokd.study import run_search

    config = read_config(config)
    return run_search(
        config,
        run_directory(config, run_dir),
        cache_dir=cache_directory(cache_dir),
        storage_url=storage_url,
        resume=resume,
        observer=observer,
        forecast_s=forecast_s,
        trackers=log,
    )


def distill(
    config: RunConfig | Mapping[str, Any] | str | Path,
    distiller: DistillerSpec | str | Path,
    *,
    gradient_ratio: float | None = None,
    run_dir: str | Path | None = None,
    cache_dir: str | Path | None = None,
    resume: bool = False,
    observer: Observer | None = None,
    log: Sequence[str] = (),
) -> Results:
    """Train the student in full with a given distillation loss, beside the configuration's baselines.

    Example::

        results = autokd.distill("kd.yaml", "pkd", gradient_ratio=40)

    Args:
        config: configuration: the path of a config file, its YAML text, the same as a mapping, or a ``RunConfig``.
        distiller: a preset's name (``autokd.preset_names``), the path of a distiller's YAML file, or a spec. A preset
            with several families has the terms and weights of the student's.
        gradient_ratio: gradient ratio to train at, above 0, in place of the weights that the distiller has; None:
            those weights.
        run_dir: folder of the run, new or empty unless ``resume``; None: ``runs/NAME-DISTILLER``.
        cache_dir: folder of trained teachers and cached features, which runs share; None: the environment variable
            AUTOKD_CACHE, or ``.autokd_cache``.
        resume: continue the run in ``run_dir``.
        observer: receiver of progress; None: progress is discarded.
        log: trackers that receive curves, parameters and results, as in ``search``.

    Returns:
        The content of results.json: an entry for "none", each baseline and the given distiller.

    Raises:
        ConfigError: if the configuration or the distiller is wrong, or the pair cannot supply what the distiller reads.
        DataError: if the data set is broken.
        DetectorError: if a detector cannot be built or its weights do not fit.
        StorageError: if ``run_dir`` belongs to another run, or cannot be written.
        RuntimeUnavailableError: if the chosen runtime cannot run here.
    """
    from autokd.detectors import detector_family_of
    from autokd.study import run_distill

    config = read_config(config)
    spec = read_distiller(distiller, detector_family_of(config.student))
    directory = run_directory(config, run_dir, distiller_name(distiller))
    spec = spec if gradient_ratio is None else spec.with_gradient_ratio(gradient_ratio)
    return run_distill(
        config,
        spec,
        directory,
        cache_dir=cache_directory(cache_dir),
        resume=resume,
        observer=observer,
        trackers=log,
    )


def plan(
    config: RunConfig | Mapping[str, Any] | str | Path,
    *,
    cache_dir: str | Path | None = None,
    price: float | None = None,
    gpus: float | None = None,
    seconds: float = 30.0,
) -> Bill:
    """Forecast what a search costs: disk, memory, hours and money of each phase. Nothing is trained or cached.

    Example::

        bill = autokd.plan("kd.yaml", price=2.5)
        print(bill.line())

    Args:
        config: configuration: the path of a config file, its YAML text, the same as a mapping, or a ``RunConfig``.
        cache_dir: folder of trained teachers and cached features; what it holds is not counted again. None: the
            environment variable AUTOKD_CACHE, or ``.autokd_cache``.
        price: price of an hour of one GPU, or of the machine if it has none, in any currency; None: no money.
        gpus: GPUs that the run will hold, of the kind that this machine has; None: this machine's.
        seconds: time to spend on measuring, roughly.

    Returns:
        The bill, with ``phases``, sums, ``advice()`` and what cannot fit (``excess()``).

    Raises:
        ConfigError: if the configuration is wrong.
        DataError: if the data set is broken.
        DetectorError: if a detector cannot be built or its weights do not fit.
    """
    from autokd.study import make_plan

    return make_plan(
        read_config(config), cache_dir=cache_directory(cache_dir), price=price, gpus=gpus, budget_s=seconds
    )


def evaluate(
    config: RunConfig | Mapping[str, Any] | str | Path,
    weights: str | Path,
    *,
    split: Literal["val", "test"] = "test",
    side: Literal["student", "teacher"] = "student",
    cache_dir: str | Path | None = None,
) -> dict[str, float]:
    """Measure COCO AP of given weights on the configuration's data.

    Example::

        autokd.evaluate("kd.yaml", "runs/kd/student.pt")["AP"]

    Args:
        config: configuration: the path of a config file, its YAML text, the same as a mapping, or a ``RunConfig``.
        weights: file of weights, such as a run's student.pt.
        split: part of the data set.
        side: detector that the weights belong to.
        cache_dir: folder of cached data; None: the environment variable AUTOKD_CACHE, or ``.autokd_cache``.

    Returns:
        "AP" (mean over IoU 0.5 to 0.95), "AP50" and "AP CLASS" of each class, each in [0, 1].

    Raises:
        ConfigError: if the configuration is wrong, or ``side`` is "teacher" and it has several.
        DataError: if the data set is broken.
        DetectorError: if the weights are those of another model; the message lists the keys.
    """
    from autokd.study import evaluate_weights

    return evaluate_weights(read_config(config), Path(weights), split, side, cache_dir=cache_directory(cache_dir))


def predict(
    source: str | Path,
    images: Iterable[str | Path],
    out: str | Path = "predictions",
    *,
    forms: Sequence[str] = ("pictures", "coco", "csv"),
    threshold: float = 0.3,
    config: RunConfig | Mapping[str, Any] | str | Path | None = None,
    side: Literal["student", "teacher"] = "student",
    batch_size: int = 8,
    every: int = 1,
    cache_dir: str | Path | None = None,
    on_image: Callable[[int, int | None], None] | None = None,
) -> dict[str, Any]:
    """Detect on images and videos by a trained student, and write pictures, COCO JSON and CSV.

    Example::

        autokd.predict("runs/kd", ["photos", "street.mp4"], "predictions")

    Args:
        source: run directory; file of weights in one, or with ``config``; or a safetensors file of ``autokd.export``.
        images: images, videos, folders of them, or globs.
        out: folder of the predictions; made if it is absent.
        forms: "pictures", "coco", "csv".
        threshold: least score of a box.
        config: configuration of the weights; None: that of the run directory.
        side: detector that the weights belong to.
        batch_size: images that the detector sees at once.
        every: number of a video's frames of which one is taken.
        cache_dir: folder of cached data; None: the environment variable AUTOKD_CACHE, or ``.autokd_cache``.
        on_image: called with the number of images done, and of all; None for the latter if there is a video.

    Returns:
        "images", "boxes" and "files": counts, and the files and folders that were written.

    Raises:
        AutoKDError: if there are no such images or weights, or a package of an extra is missing.
    """
    from autokd.inference import predict_to_files

    return predict_to_files(
        source,
        images,
        Path(out),
        forms=forms,
        threshold=threshold,
        config=None if config is None else read_config(config),
        side=side,
        batch_size=batch_size,
        every=every,
        cache_dir=cache_directory(cache_dir),
        on_image=on_image,
    )


def export(
    source: str | Path,
    formats: Sequence[str] = ("onnx",),
    out: str | Path | None = None,
    *,
    config: RunConfig | Mapping[str, Any] | str | Path | None = None,
    images: Sequence[str | Path] = (),
    cache_dir: str | Path | None = None,
) -> Export:
    """Export a trained student, compare each file with it on images, and time both beside the teacher.

    Example::

        found = autokd.export("runs/kd", ["onnx"])
        print(found.models[0].differences)

    Args:
        source: run directory, or a file of weights.
        formats: "onnx", "torchscript", "safetensors".
        out: folder of the files; None: that of the weights.
        config: configuration of the weights; None: that of the run directory.
        images: images to compare on; empty: the first test images of the run's data.
        cache_dir: folder of cached data and trained teachers; None: the environment variable AUTOKD_CACHE, or
            ``.autokd_cache``.

    Returns:
        The files, with differences, sizes and latencies.

    Raises:
        AutoKDError: if the detector cannot be loaded or has no form for a format, or a package of an extra is missing.
    """
    from autokd.inference import export_run

    return export_run(
        source,
        formats,
        None if out is None else Path(out),
        config=None if config is None else read_config(config),
        images=images,
        cache_dir=cache_directory(cache_dir),
    )


def read_config(config: RunConfig | Mapping[str, Any] | str | Path) -> RunConfig:
    """Return a configuration that may be given in several forms.

    Args:
        config: path of a config file, its YAML text, the same as a mapping, or a ``RunConfig``, which is returned.

    Raises:
        ConfigError: if it is wrong.
    """
    from autokd.config import RunConfig, load_config
    from autokd.documents import dump_yaml

    if isinstance(config, RunConfig):
        return config
    if isinstance(config, Mapping):
        # Through YAML, so that a mapping is checked exactly as the file would be.
        return load_config(dump_yaml(_as_yaml_data(config)))
    return load_config(config)


def read_distiller(distiller: DistillerSpec | str | Path, family: str | None = None) -> DistillerSpec:
    """Return a distiller that may be given in several forms.

    Args:
        distiller: a preset's name, the path of a distiller's YAML file, or a spec, which is returned.
        family: family of the student, which chooses among the families of a preset or file; None: unknown.

    Raises:
        SpecError: if there is no such preset or family, or the file holds no distiller.
    """
    from autokd.presets import load_preset, preset_names
    from autokd.spec import DistillerSpec

    if isinstance(distiller, DistillerSpec):
        return distiller
    if isinstance(distiller, str) and (distiller in preset_names() or not Path(distiller).suffix):
        return load_preset(distiller, family)
    return DistillerSpec.from_yaml(Path(distiller), family)


def distiller_name(distiller: DistillerSpec | str | Path) -> str:
    """Return the name that a distiller gives its run directory: its own, else its file's, else "given".

    Args:
        distiller: a preset's name, the path of a distiller's YAML file, or a spec.

    Raises:
        SpecError: if there is no such preset, or the file holds no distiller.
    """
    stem = Path(distiller).stem if isinstance(distiller, (str, Path)) else "given"
    return read_distiller(distiller).name or stem


def run_directory(config: RunConfig, run_dir: str | Path | None = None, distiller: str = "") -> Path:
    """Return the folder of a run.

    Args:
        config: configuration of the run.
        run_dir: folder that the user asked for; None: ``runs/NAME``, or ``runs/NAME-DISTILLER``.
        distiller: name of the distiller that is trained; empty: the run searches one.

    Raises:
        ConfigError: if a name is not one component of a path.
    """
    from autokd.errors import ConfigError
    from autokd.files import name_problem

    if run_dir is not None:
        return Path(run_dir).expanduser()
    for name in (config.name, distiller):
        problem = name_problem(name) if name else None
        if problem is not None:
            raise ConfigError(
                f"the name {name[:80]!r} {problem}, and the run's folder would bear it. Change 'name', or "
                "give --run-dir."
            )
    return RUNS / (f"{config.name}-{distiller}" if distiller else config.name)


def cache_directory(cache_dir: str | Path | None = None) -> Path:
    """Return the absolute path of the cache.

    Args:
        cache_dir: folder that the user asked for; None: the environment variable AUTOKD_CACHE, or ``.autokd_cache``.
    """
    # Absolute: workers, which Ray starts in folders of their own, must find it too.
    return Path(cache_dir or os.environ.get("AUTOKD_CACHE") or CACHE).expanduser().absolute()


def _as_yaml_data(value: Any) -> Any:
    """Return mappings, sequences, paths and plain values as YAML can write them."""
    if isinstance(value, Mapping):
        return {str(key): _as_yaml_data(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_yaml_data(item) for item in value]
    return str(value) if isinstance(value, Path) else value
