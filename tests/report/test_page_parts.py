"""What the pages draw beyond the report: formulas in mathematical type, the tree as data, small figures, boxes."""

from __future__ import annotations

from pathlib import Path
from xml.dom import minidom

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from autokd.presets import load_preset, preset_names
from autokd.report.icicle import choice_gain, icicle_data
from autokd.report.mathml import distiller_mathml, formula_mathml, operator_cards
from autokd.report.pictures import Boxes, ComparisonImage
from autokd.report.pictures_file import difference, load_pictures, save_pictures
from autokd.report.svg import intervals_svg, lines_svg
from tests.support.report_samples import make_entries, make_trials


def text_of(element: minidom.Node) -> str:
    return "".join(child.data if child.nodeType == child.TEXT_NODE else text_of(child) for child in element.childNodes)


def test_every_preset_is_well_formed_and_explains_its_operators() -> None:
    for name in preset_names():
        spec = load_preset(name)
        document = minidom.parseString(distiller_mathml(spec))
        tips = [each.getAttribute("data-tip") for each in document.getElementsByTagName("span")]
        cards = operator_cards(spec)
        assert len(tips) >= len(cards) + 1, "each operator, and the weights"
        assert all(any(card.meaning in tip for tip in tips) for card in cards), name
        for card in cards:
            minidom.parseString(card.math)


def test_powers_indices_and_roots_are_set_as_such() -> None:
    document = minidom.parseString(formula_mathml("tau^2 mean_b sqrt(sum (s - t)^2)"))
    [root] = document.getElementsByTagName("msqrt")
    assert text_of(root) == "∑(s−t)2"
    assert [text_of(each) for each in document.getElementsByTagName("msup")] == ["τ2", "(s−t)2"]
    assert [text_of(each) for each in document.getElementsByTagName("msub")] == ["meanb"]


def test_a_formula_that_is_not_understood_is_shown_as_written() -> None:
    document = minidom.parseString(formula_mathml("a )( <x> & § ^"))
    assert text_of(document.documentElement).replace(" ", "") == "a)(<x>&§^"


def test_the_tree_counts_what_passed() -> None:
    trials = make_trials(200)
    nodes = icicle_data(trials)
    assert nodes[0]["parent"] == -1
    assert nodes[0]["visits"] == 200
    for i, node in enumerate(nodes[1:], 1):
        assert node["parent"] < i
        assert node["visits"] <= nodes[node["parent"]]["visits"]
    chosen = [t.value for t in trials if t.has_value and dict(t.path)["1.source"] == "feature_map"]
    [node] = [each for each in nodes if each["label"] == "feature_map" and each["parent"] == 0]
    assert node["mean"] == pytest.approx(np.mean(chosen), rel=1e-4)


def test_what_a_choice_adds_is_welchs_difference() -> None:
    chosen, others = [1.0, 1.5, 0.5, 1.2], [0.0, 0.1, -0.4]
    expected = stats.ttest_ind(chosen, others, equal_var=False)
    gain = choice_gain(chosen, chosen + others)
    assert gain is not None
    mean, low, high = gain
    assert mean == pytest.approx(np.mean(chosen) - np.mean(others))
    interval = expected.confidence_interval(0.95)
    assert low is not None
    assert high is not None
    # Whole degrees of freedom, rounded down: a little wider.
    assert interval.low - 0.1 < low <= interval.low + 1e-9
    assert interval.high - 1e-9 <= high < interval.high + 0.1
    assert choice_gain([1.0], [1.0]) is None
    assert choice_gain([1.0], [1.0, 3.0]) == (-2.0, None, None)


def test_intervals_are_drawn_with_their_numbers_and_names_are_escaped() -> None:
    document = minidom.parseString(intervals_svg(make_entries(), 0.384))
    words = text_of(document.documentElement)
    for entry in make_entries():
        assert f"{np.mean(entry.test_ap):.4f}" in words
    minidom.parseString(lines_svg({"<b>": [(1.0, 0.1), (2.0, 0.3)]}, "a & b"))
    assert intervals_svg((), None) == ""
    assert lines_svg({}, "nothing") == ""


def test_boxes_come_back_from_their_file(tmp_path: Path) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    truth = Boxes([[0, 0, 10, 10], [20, 20, 30, 30]], [0, 1])
    found = {"none": Boxes([[0, 0, 10, 10]], [0], [0.9]), "searched": Boxes(truth.boxes_xyxy_px, [0, 1], [0.9, 0.1])}
    image = ComparisonImage(tmp_path / "a.png", truth, found, ("x", "y"), "a.png", (30, 40))
    save_pictures(tmp_path, [image], 0.3)
    [read], threshold = load_pictures(tmp_path)
    assert threshold == 0.3
    assert (read.truth, read.classes, read.size_px) == (
        Boxes([[0, 0, 10, 10], [20, 20, 30, 30]], [0, 1], []),
        ("x", "y"),
        (30, 40),
    )
    assert read.detections["searched"].labels == [0], "below the threshold"
    assert difference(image, "none", "searched") == 1
    (tmp_path / "pictures.json").write_text((tmp_path / "pictures.json").read_text().replace("a.png", "passwd"))
    assert load_pictures(tmp_path) == ([], 0.0)
