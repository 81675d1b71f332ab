"""The verbs in Python: callable in every order of imports, light to import, documented, the same as the commands."""

from __future__ import annotations

import inspect
import pickle
import pydoc
import subprocess
import sys
from pathlib import Path

import pytest

import autokd
import autokd.study
from autokd import api
from autokd.config import load_config
from autokd.errors import ConfigError, SpecError
from autokd.presets import load_preset

CONFIG = {"data": {"format": "shapes"}, "teacher": {"train": {}}, "student": {}, "search": {"trials": 3}}

IMPORTS = {
    "attribute": "import autokd; verb = autokd.search",
    "module of the package first": "import autokd.search.samplers; verb = autokd.search",
    "package under a name": "import autokd.search as verb",
    "from the root": "from autokd import search as verb",
    "a name of the package first": "from autokd.search import MCTSSampler; import autokd; verb = autokd.search",
    "importlib": "import importlib; verb = importlib.import_module('autokd.search')",
    "study first": "import autokd.study, autokd; verb = autokd.search",
    "loaded again": "import autokd.search, importlib; verb = importlib.reload(autokd.search)",
}


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("imports", IMPORTS.values(), ids=IMPORTS)
def test_a_package_is_callable_whichever_import_comes_first(imports):
    code = (
        f"{imports}\n"
        "import inspect, sys, types, autokd, autokd.api\n"
        "assert verb is autokd.search is sys.modules['autokd.search'], 'one object'\n"
        "assert isinstance(verb, types.ModuleType) and callable(verb)\n"
        "assert inspect.signature(verb) == inspect.signature(autokd.api.search)\n"
    )
    python(code)


@pytest.mark.parametrize("imports", [IMPORTS["attribute"], IMPORTS["loaded again"]])
def test_a_called_package_runs_its_verb(imports):
    code = (
        f"{imports}\nimport autokd\n"
        "assert verb.MCTSSampler is autokd.MCTSSampler\n"
        "try:\n    verb({'data': 1})\nexcept autokd.AutoKDError as error:\n    print(type(error).__name__)\n"
    )
    assert python(code).strip() == "ConfigError"


def test_distill_is_package_and_verb_too():
    assert autokd.distill.build_distiller is autokd.build_distiller
    with pytest.raises(SpecError, match="Did you mean 'pkd'"):
        autokd.distill(CONFIG, "pdk")


def test_importing_autokd_loads_nothing_heavy():
    code = (
        "import sys, autokd\nautokd.evaluate, dir(autokd)\n"
        "print({'torch', 'optuna', 'ray', 'pydantic', 'numpy'} & set(sys.modules))"
    )
    assert python(code).strip() == "set()"


@pytest.mark.parametrize("verb", ["search", "distill", "evaluate"])
def test_help_of_a_verb_reads_as_a_reference_page(verb):
    page = pydoc.render_doc(getattr(autokd, verb), renderer=pydoc.plaintext)
    function = getattr(api, verb)
    assert page.index((inspect.getdoc(function) or "").splitlines()[0]) < page.index("Args:")
    for name in inspect.signature(function).parameters:
        assert f"    {name}: " in page
    assert page.index("Args:") < page.index("Returns:") < page.index("Raises:")


def test_a_callable_package_has_the_signature_of_its_verb():
    assert inspect.signature(autokd.search) == inspect.signature(api.search)
    assert inspect.signature(autokd.distill) == inspect.signature(api.distill)


@pytest.mark.parametrize("module", [autokd, autokd.search, autokd.distill])
def test_modules_with_a_class_of_their_own_are_pickled_by_name(module):
    assert pickle.loads(pickle.dumps(module)) is module


def test_every_public_name_exists_and_is_listed():
    assert all(hasattr(autokd, name) for name in autokd.__all__)
    assert set(autokd.__all__) <= set(dir(autokd))


@pytest.fixture
def received(monkeypatch):
    """Arguments that a verb passes on to the study."""
    calls: list[tuple[tuple, dict]] = []
    for name in ("run_search", "run_distill", "evaluate_weights"):
        monkeypatch.setattr(autokd.study, name, lambda *args, **kwargs: calls.append((args, kwargs)))
    return calls


def test_a_configuration_may_be_a_mapping_a_path_a_text_or_read_already(received, tmp_path):
    text = "data: {format: shapes}\nteacher: {train: {}}\nstudent: {}\nsearch: {trials: 3}\n"
    (tmp_path / "kd.yaml").write_text(text)
    read = load_config(tmp_path / "kd.yaml")
    for given in (CONFIG, text, tmp_path / "kd.yaml", str(tmp_path / "kd.yaml"), read):
        autokd.search(given)
    found = [args[0].model_copy(update={"name": ""}) for args, _ in received]
    assert found == [read.model_copy(update={"name": ""})] * 5
    with pytest.raises(ConfigError, match="Did you mean 'search'"):
        autokd.search(CONFIG | {"serch": {}})


def test_folders_are_those_of_the_command_line_unless_given(received, tmp_path, monkeypatch):
    monkeypatch.delenv("AUTOKD_CACHE", raising=False)
    autokd.search(CONFIG | {"name": "mine"})
    autokd.distill(CONFIG | {"name": "mine"}, "pkd")
    autokd.search(CONFIG, run_dir=tmp_path / "run", cache_dir=tmp_path / "cache")
    monkeypatch.setenv("AUTOKD_CACHE", str(tmp_path / "shared"))
    autokd.search(CONFIG)
    (first, of_first), (second, _), (third, of_third), (_, of_last) = received
    assert (first[1], of_first["cache_dir"]) == (Path("runs/mine"), Path(".autokd_cache").absolute())
    assert second[2] == Path("runs/mine-pkd")
    assert (third[1], of_third["cache_dir"]) == (tmp_path / "run", tmp_path / "cache")
    assert of_last["cache_dir"] == tmp_path / "shared"


def test_a_distiller_may_be_a_preset_a_file_or_a_spec(received, tmp_path):
    spec = load_preset("pkd")
    (tmp_path / "mine.yaml").write_text(spec.to_yaml().replace("name: pkd\n", ""))
    for given in ("pkd", tmp_path / "mine.yaml", str(tmp_path / "mine.yaml"), spec):
        autokd.distill(CONFIG, given)
    autokd.distill(CONFIG, "pkd", gradient_ratio=40)
    assert [args[1].digest for args, _ in received] == [spec.digest] * 4 + [spec.with_gradient_ratio(40).digest]
    assert received[1][0][2] == Path("runs/autokd-mine")


def test_evaluate_names_split_and_side(received):
    autokd.evaluate(CONFIG, "student.pt", split="val", side="teacher")
    assert received[0][0][1:] == (Path("student.pt"), "val", "teacher")
