"""The index of the experiments is made from the heads of their READMEs; scripts keep to the rules that it states."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path

import pytest

from autokd.benchmark.index import index_page, read_head
from autokd.errors import BenchmarkError

ROOT = Path(__file__).parents[2]
EXPERIMENTS = ROOT / "experiments"
SCRIPTS = sorted(EXPERIMENTS.rglob("*.py"))
READMES = sorted(EXPERIMENTS.glob("*/README.md"))
HEAD = "---\nquestion: q\nanswer: a\ncommand: c\ncommit: '1e5'\nowner: autokd\nremovable_when: r\n---\n"


def test_the_index_is_up_to_date():
    expected = index_page(EXPERIMENTS)
    assert (EXPERIMENTS / "README.md").read_text(encoding="utf-8") == expected, (
        "run: python -m autokd.benchmark.index > experiments/README.md"
    )


def test_every_folder_of_experiments_has_a_readme():
    files = [path for kind in ("py", "json", "jsonl", "yaml") for path in EXPERIMENTS.glob(f"*/*.{kind}")]
    assert {path.parent for path in files} == {path.parent for path in READMES}


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.parent.name)
def test_a_head_names_an_owner_and_a_commit_that_exist(readme):
    head = read_head(readme)
    assert (ROOT / Path(*head.owner.split("."))).is_dir()
    assert head.answer[-1] == head.removable_when[-1] == "."
    assert "?" in head.question
    if (ROOT / ".git").exists():
        found = subprocess.run(["git", "cat-file", "-t", head.commit], cwd=ROOT, capture_output=True, text=True)
        assert found.stdout.strip() in ("commit", ""), "an abbreviation of something else"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# A title\n", "no head"),
        ("---\nquestion: q\n", "no head"),
        (HEAD.replace("owner: autokd\n", ""), "they are question, answer, command, commit, owner, removable_when"),
        (HEAD.replace("'1e5'", "1e5"), "commit is no text"),
        (HEAD.replace("answer: a", "answer: ''"), "answer is no text"),
    ],
)
def test_a_readme_without_a_proper_head_is_refused(tmp_path, text, message):
    (tmp_path / "README.md").write_text(text)
    with pytest.raises(BenchmarkError, match=message):
        read_head(tmp_path / "README.md")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(EXPERIMENTS)))
def test_a_script_imports_no_script_of_another_folder_and_edits_no_path(script):
    text = script.read_text(encoding="utf-8")
    assert "sys.path" not in text
    here = {path.stem for path in script.parent.glob("*.py")}
    elsewhere = {path.stem for path in SCRIPTS} - here
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(text))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in ([alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""])
    }
    assert not imported & (elsewhere | {"experiments", "tests"})
