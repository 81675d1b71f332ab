"""The suite of pairs: labels as distillers, points of the curves, and tables that come out of the records."""

from __future__ import annotations

import json
import re

import pytest

from autokd.benchmark import BenchmarkRow, DistillerBenchmark, load_benchmark
from autokd.benchmark.recording.curves import measured_epochs
from autokd.jobs import Outcome
from autokd.presets import load_preset
from experiments.pairs import record, tables
from experiments.pretrained import tables as pretrained
from tests.support.benchmark_samples import synthetic


@pytest.mark.parametrize(
    ("num_epochs", "expected"), [(10, (1, 4)), (12, (2, 4)), (4, (1, 2)), (30, (3, 10)), (3, (1,)), (1, ())]
)
def test_curves_are_measured_at_a_tenth_and_a_third(num_epochs, expected):
    assert measured_epochs(num_epochs) == expected


def test_a_label_is_a_sum_of_presets_at_their_strengths():
    spec = record.distiller_of("g_detkd_sgfi@3000+fitnet@600:linear_decay+crosskd@published", "anchor_free")
    sgfi, fitnet, *crossed = spec.terms
    assert (sgfi.weight.kind, sgfi.weight.value, sgfi.weight.schedule) == ("relative", 3000, "constant")
    assert (fitnet.weight.value, fitnet.weight.schedule) == (600, "linear_decay")
    assert tuple(crossed) == load_preset("crosskd", "anchor_free").terms
    assert spec.name.startswith("g_detkd_sgfi@3000+")
    assert record.distiller_of("none", None) is None


def test_the_plan_names_every_training_once_and_begins_with_none():
    plan = record.Suite(record.HERE).plan
    assert len(plan) == len(set(plan))
    assert plan[:2] == [("none", 0), ("none", 1)]
    assert {label for label, seed in plan if seed == 1} <= {label for label, seed in plan if seed == 0}
    for label in dict.fromkeys(label for label, _ in plan):
        record.distiller_of(label, "anchor_free")


def table_of(gains: dict[str, float]) -> DistillerBenchmark:
    """A table with none at .3 and a row a label, on val and test alike."""
    header = synthetic(seeds=(0,)).header
    specs = {label: record.distiller_of(label, "anchor_free") for label in gains}

    def row(label: str, ap: float) -> BenchmarkRow:
        return BenchmarkRow(specs.get(label), {0: Outcome("", "finished", {"val_ap": ap, "test_ap": ap})})

    return DistillerBenchmark(header, [row("none", 0.3), *(row(label, 0.3 + gain) for label, gain in gains.items())])


def test_the_preset_that_is_best_elsewhere_never_sees_the_pair_itself():
    fitnet, cwd = "fitnet@300", "cwd@300"
    suite = {
        "a": table_of({fitnet: 0.09, cwd: 0.01}),
        "b": table_of({fitnet: 0.00, cwd: 0.02}),
        "c": table_of({fitnet: 0.01, cwd: 0.02}),
    }
    label, row = tables.best_elsewhere("a", suite)
    assert label == cwd, "on a itself fitnet is best by far"
    assert row.values("val_ap")[0] == pytest.approx(0.31)
    changed = suite | {"a": table_of({fitnet: 0.5, cwd: -0.2})}
    assert tables.best_elsewhere("a", changed)[0] == cwd, "whatever happens on the pair changes nothing"
    assert tables.best_elsewhere("b", suite)[0] == fitnet


def test_a_sum_is_no_preset():
    table = table_of({"fitnet@300": 0.01, "cwd@300": 0.02, "fitnet@300+cwd@300": 0.03})
    assert tables.label_of(tables.best(table, "val_ap")) == "fitnet@300+cwd@300"
    assert tables.label_of(tables.best(table, "val_ap", tables.is_preset)) == "cwd@300"


def test_a_pairs_table_shows_each_preset_at_its_best_strength_on_val():
    lines = tables.pair_table(table_of({"fitnet@300": 0.01, "fitnet@30": 0.03, "cwd@300": 0.02}))
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["none", "fitnet@30", "cwd@300"]
    assert lines[3].split("|")[2].strip() == "2"


def test_failed_trainings_are_counted_and_give_no_gain():
    table = table_of({"fitnet@300": 0.01, "cwd@300": 0.02})
    [fitnet, cwd] = table
    failed = BenchmarkRow(cwd.spec, {0: Outcome("", "failed", cause="non_finite")})
    table = DistillerBenchmark(table.header, [table.none, fitnet, failed])
    assert tables.label_of(tables.best(table, "val_ap")) == "fitnet@300"
    assert tables.counts_table({"a": table})[2].split("|")[2:5] == [" 2 ", " 3 ", " 1 "]


@pytest.mark.parametrize("name", [name for name, _ in tables.readme_tables()])
def test_the_tables_of_the_readme_come_out_of_the_records(name):
    readme = (tables.HERE / "README.md").read_text(encoding="utf-8")
    recorded = readme.partition(f"<!-- {name} -->\n")[2].partition("<!-- end -->")[0].splitlines()
    assert recorded == dict(tables.readme_tables())[name]


@pytest.mark.parametrize("pair", tables.suite())
def test_a_record_holds_distillers_of_the_plan_as_todays_presets_have_them(pair):
    table = tables.suite()[pair]
    known = {label for label, _ in record.Suite(record.HERE).plan}
    for row in table:
        assert row.spec.name in known
        of_families = (record.distiller_of(row.spec.name, family) for family in ("anchor_based", "anchor_free"))
        assert row.digest in {spec.digest for spec in of_families}
    assert (tables.RECORDS / f"{pair}.jsonl.gz").stat().st_size < 2_000_000


def test_the_table_of_pretrained_starts_comes_out_of_its_records():
    readme = (pretrained.HERE / "README.md").read_text(encoding="utf-8")
    recorded = readme.partition("<!-- table -->\n")[2].partition("<!-- end -->")[0].splitlines()
    assert recorded == pretrained.table(pretrained.records())


@pytest.mark.parametrize("path", sorted(record.HERE.parent.glob("*/records/*.jsonl.gz")), ids=lambda path: path.name)
def test_a_record_names_no_place_of_the_machine_that_made_it(path):
    header = load_benchmark(path).header
    assert not re.search(r'"(/|[A-Z]:\\\\)', json.dumps(header.config)), "an absolute path"
