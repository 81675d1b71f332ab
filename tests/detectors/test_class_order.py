"""Classes matched by name: orders, what is lacking, and labels there and back."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from autokd.detectors import class_order
from autokd.detectors.labels import LabelMap, same_labels
from autokd.errors import DetectorError

COCO = ("person", "bicycle", "car", "motorcycle", "airplane")


def test_the_order_is_that_of_the_data_set():
    assert class_order(COCO, ("car", "person")) == (2, 0)
    assert class_order(COCO, COCO) == (0, 1, 2, 3, 4)


def test_classes_that_the_teacher_lacks_are_named_with_the_remedy():
    with pytest.raises(DetectorError) as caught:
        class_order(COCO, ("car", "Bicycle", "boat"), "teacher.pth")
    message = str(caught.value)
    assert message.startswith("teacher.pth: does not know 'Bicycle', 'boat'")
    assert "'person', 'bicycle', 'car'" in message
    assert "Is 'Bicycle' its 'bicycle'?" in message
    assert "new_head" in message


def test_many_lacking_classes_are_counted():
    with pytest.raises(DetectorError, match="'9' and 90 more"):
        class_order(COCO, tuple(map(str, range(100))))


@pytest.mark.parametrize(
    ("known", "wanted", "whose"), [(("a", "a"), ("a",), "teacher"), (("a",), ("a", "a"), "data set")]
)
def test_a_name_that_stands_twice_is_refused(known, wanted, whose):
    with pytest.raises(DetectorError, match=f"{whose}: the class 'a' occurs twice"):
        class_order(known, wanted)


def test_logits_are_picked_and_reordered():
    labels = LabelMap((2, 0), 3)
    logits = torch.tensor([[[10.0, 20.0, 30.0]]])
    assert labels.select(logits).tolist() == [[[30.0, 10.0]]]


def test_equal_classes_change_nothing():
    logits = torch.rand(2, 3, 4)
    labels = same_labels(4)
    assert labels.is_identity
    assert labels.select(logits) is logits


@given(st.integers(1, 6).flatmap(lambda n: st.tuples(st.just(n), st.permutations(range(n)), st.integers(1, n))))
def test_labels_come_back_as_they_went(case):
    num_model, order, num_data = case
    labels = LabelMap(tuple(order[:num_data]), num_model)
    data_labels = torch.arange(num_data)
    back, known = labels.from_model(labels.to_model(data_labels))
    assert known.all()
    assert torch.equal(back, data_labels)
    _, known = labels.from_model(torch.arange(num_model))
    assert known.tolist() == [k in order[:num_data] for k in range(num_model)]
