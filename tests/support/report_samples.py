"""A made-up run with everything a report can show; the numbers are simple, so that tests can redo them by hand."""

from __future__ import annotations

import numpy as np

from autokd.report.pictures import Boxes, ComparisonImage
from autokd.report.view import (
    EntryView,
    FidelityPoint,
    ReportData,
    SearchView,
    TrialView,
)
from autokd.storage import FinalistResult, ProxyFidelity, Race, RaceRound, TeacherResult

CLASSES = ("RBC", "WBC", "Platelets")

_SOURCES = ("feature_map", "foreground", "instance")
_SHAPES = ("none", "spatial_attention", "channel_attention")
_NORMALIZATIONS = ("none", "standardize")
_DISTANCES = ("l1", "l2", "cosine")
_PRESETS = ("fitnet", "pkd", "cwd")


def make_trials(count: int = 40, seed: int = 0) -> tuple[TrialView, ...]:
    """Enqueued presets first, then a search that narrows; failed, pruned, reused and running ones among them."""
    rng = np.random.default_rng(seed)
    trials: list[TrialView] = []
    for number in range(count):
        focus = number / count
        source = _SOURCES[0] if rng.random() < focus * 0.6 else str(rng.choice(_SOURCES))
        shape = str(rng.choice(_SHAPES))
        normalize = "standardize" if rng.random() < focus else str(rng.choice(_NORMALIZATIONS))
        distance = "l2" if rng.random() < focus * 0.7 else str(rng.choice(_DISTANCES))
        path = (("terms", "1"), ("1.source", source), ("1.attention", shape), ("1.normalize", normalize),
                ("1.distance", distance))  # fmt: skip
        value = 0.8 * (normalize == "standardize") + 0.5 * (source == "feature_map") - 0.3 * (distance == "l1")
        value += float(rng.normal(0, 0.25))
        common = {"number": number, "path": path, "formula": f"40 x {distance}({normalize}({shape}({source})))"}
        if number in (9, 17):
            trials.append(
                TrialView(**common, status="failed", cause="non_finite", message="the loss is nan in epoch 2")
            )
        elif number == 23:
            trials.append(TrialView(**common, status="failed", cause="timeout", message="stopped after 60 s"))
        elif number in (12, 29):
            trials.append(TrialView(**common, status="pruned", value=value - 0.8, seconds=7.0))
        elif number == 31:
            trials.append(TrialView(**common, status="finished", value=trials[30].value, reused_from=30))
        elif number == count - 1:
            trials.append(TrialView(**common, status="running"))
        else:
            preset = _PRESETS[number] if number < len(_PRESETS) else ""
            metrics = {"val_loss": 0.9 - 0.05 * value, "cka": 0.5 + 0.1 * value}
            trials.append(
                TrialView(**common, status="finished", value=value, preset=preset, metrics=metrics, seconds=19.5)
            )
    return tuple(trials)


def make_entries() -> tuple[EntryView, ...]:
    """None, three presets and the searched one, five seeds each; the searched one is really ahead."""
    seeds = (0, 1, 2, 3, 4)
    common = np.array([0.000, 0.004, -0.003, 0.002, -0.002])
    means = {"none": 0.352, "fitnet": 0.361, "pkd": 0.366, "cwd": 0.358, "searched": 0.379}
    entries = []
    for i, (name, mean) in enumerate(means.items()):
        own = np.random.default_rng(10 + i).normal(0, 0.0015, len(seeds))
        test = mean + common + own
        formula = () if name == "none" else ("L = 40 x l2(standardize(whole))", "where", "  l2: mean (s - t)^2")
        entries.append(
            EntryView(
                name=name,
                seeds=seeds,
                val_ap=tuple((test + 0.012).tolist()),
                test_ap=tuple(test.tolist()),
                train_seconds=tuple((80.0 + i + common * 1000).tolist()),
                digest="" if name == "none" else f"{i:016x}",
                formula_lines=formula,
                yaml="" if name == "none" else "schema: 2\nterms:\n- {source: feature_map, distance: l2}\n",
                per_class={
                    label: tuple((test + shift).tolist())
                    for label, shift in zip(CLASSES, (0.2, 0.25, -0.3), strict=True)
                },
                per_size={size: tuple((test + shift).tolist()) for size, shift in (("small", -0.1), ("large", 0.15))},
            )
        )
    return tuple(entries)


def make_images(count: int = 3) -> tuple[ComparisonImage, ...]:
    """Noise with bright discs; each detector finds some of them."""
    images = []
    for i in range(count):
        rng = np.random.default_rng(i)
        pixels_HWC = (rng.normal(0.45, 0.06, (120, 160, 3)) + np.array([0.3, 0.15, 0.2])).clip(0, 1)
        centers = rng.uniform([20, 20], [140, 100], (5, 2))
        boxes = []
        y, x = np.mgrid[:120, :160]
        for cx, cy in centers:
            inside = (x - cx) ** 2 + (y - cy) ** 2 < 12**2
            pixels_HWC[inside] = (0.55, 0.2, 0.45)
            boxes.append([cx - 12, cy - 12, cx + 12, cy + 12])
        labels = [0, 0, 1, 0, 2]
        found = {
            "teacher": Boxes(boxes, labels, [0.9, 0.8, 0.95, 0.7, 0.6]),
            "none": Boxes([*boxes[:3], [5, 5, 40, 30]], [0, 0, 1, 0], [0.6, 0.4, 0.7, 0.5]),
            "searched": Boxes(boxes[:4], labels[:4], [0.8, 0.6, 0.9, 0.55]),
        }
        images.append(ComparisonImage(pixels_HWC, Boxes(boxes, labels), found, CLASSES, caption=f"image {i}.jpg"))
    return tuple(images)


def make_race() -> Race:
    """Three finalists, two rounds: the last is eliminated in the first; the luckiest trial is not the winner."""
    lucky, steady, lost = "1e345678aaaaaaaa", "00112233bbbbbbbb+ccccccccdddddddd", "deadbeefeeeeeeee"
    return Race(
        finalists=(
            FinalistResult(
                digest=steady, formula="40 x l2(F)", seeds=(0, 1, 2), rewards=(1.25, 1.0, 1.5), mean=1.25,
                expected=1.125, expected_deviation=0.25,
            ),
            FinalistResult(
                digest=lucky, formula="40 x l1(F)", seeds=(0, 1, 2), rewards=(1.5, 0.5, 1.0), mean=1.0,
                expected=0.875, expected_deviation=0.25,
            ),
            FinalistResult(
                digest=lost, formula="20 x kl(F)", seeds=(0, 1), rewards=(1.0, 0.0), mean=0.5,
                expected=0.5, expected_deviation=0.375, fell_in=1, reason="0.625 behind the leader",
            ),
        ),
        rounds=(
            RaceRound(
                seed=1, leader=steady, entered=(lucky, steady, lost), fell=(lost,), noise=0.5, freedom=3
            ),
            RaceRound(seed=2, leader=steady, entered=(lucky, steady), noise=0.25, freedom=5),
        ),
        verdict="no seed was left with 2 finalists still in the race: the winner is not clear",
        trainings=5,
        prior_mean=0.25,
        between=0.75,
    )  # fmt: skip


def make_report_data() -> ReportData:
    """The whole made-up run."""
    points = ((0.0, 0.364), (0.8, 0.372), (1.1, 0.379), (0.3, 0.370), (1.45, 0.392))
    names = ("none", "fitnet", "pkd", "cwd", "searched")
    return ReportData(
        name="bccd-fcos",
        search=SearchView("mcts", finished=34, failed=3, pruned=2, reused=1, seconds=412.0, none_value=0.0),
        trials=make_trials(),
        entries=make_entries(),
        winner="searched",
        teacher=TeacherResult(val_ap=0.401, test_ap=0.384),
        race=make_race(),
        proxy_fidelity=ProxyFidelity(
            kendall_tau=0.8, pairs=5, low=0.05, high=1.0, note="The winner was selected by the proxy."
        ),
        teacher_per_class={"RBC": 0.59, "WBC": 0.63, "Platelets": 0.11},
        fidelity=tuple(FidelityPoint(name, *point) for name, point in zip(names, points, strict=True)),
        images=make_images(),
        notes=("The presets were trained at a gradient ratio of 40, kept as training goes on.",),
        config_yaml="name: bccd-fcos\nsearch: {sampler: mcts, trials: 40}\n",
        environment={"autokd": "0.1.0", "Python": "3.11", "torch": "2.15.0", "device": "cpu, 2 threads"},
    )
