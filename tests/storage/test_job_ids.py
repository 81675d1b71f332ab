"""Job ids and metric names: one text for each, read back as written."""

from __future__ import annotations

import pytest

from autokd.jobs import JobId, make_job
from autokd.metrics import TEST_AP, VAL_LOSS, class_ap, is_part, loss_part, part_of
from autokd.presets import load_preset


@pytest.mark.parametrize(
    ("identity", "text"),
    [
        (JobId("full", "none", 0), "full-none-s0"),
        (JobId("proxy", "", 3), "proxy-none-s3"),
        (JobId("full", "1e34567812345678+00112233aabbccdd", 12), "full-1e34567812345678+00112233aabbccdd-s12"),
        (JobId("proxy", "by-hand@40.0", 1), "proxy-by-hand@40.0-s1"),
    ],
)
def test_a_job_id_is_read_back_from_its_text(identity, text):
    assert str(identity) == text
    assert JobId.parse(text) == identity


def test_jobs_without_a_distiller_have_one_id():
    assert JobId("full", "", 0) == JobId("full", "none", 0)
    assert make_job(None, "full").id == "full-none-s0"


def test_a_made_job_is_named_by_what_the_student_learns_from():
    spec = load_preset("pkd")
    assert make_job(spec, "proxy", 2).id == f"proxy-{spec.digest}-s2"
    assert make_job(spec, "full", 2, "abcd").id == f"full-{spec.digest}+abcd-s2"
    assert JobId.parse(make_job(spec, "full", 2, "abcd").id).digest == make_job(spec, "full", 2, "abcd").digest


@pytest.mark.parametrize("text", ["trial-00001", "full-none", "full--s0", "half-none-s0", "full-none-s0x"])
def test_the_text_of_no_job_id_is_refused(text):
    with pytest.raises(ValueError, match="RECIPE-DIGEST-sSEED"):
        JobId.parse(text)


def test_the_metric_of_a_part_names_whole_and_part():
    assert class_ap("test", "road/sign") == "test_ap/road/sign"
    assert part_of(class_ap("test", "road/sign"), TEST_AP) == "road/sign"
    assert part_of("val_ap/cat", TEST_AP) is None
    assert part_of(TEST_AP, TEST_AP) is None
    assert part_of("test_ap_50", TEST_AP) is None
    assert part_of(loss_part("cls"), VAL_LOSS) == "cls"
    assert is_part("val_ap/cat")
    assert not is_part("val_ap")
