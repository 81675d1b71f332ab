"""The tree search is one folder that works without AutoKD, as OptunaHub would load it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import autokd.search.mcts

SCRIPT = """
import sys

sys.modules["autokd"] = sys.modules["torch"] = None  # an import of either raises ImportError
sys.path.insert(0, {folder!r})

import optuna
import tree_search

assert tree_search.__file__.startswith({folder!r})
study = optuna.create_study(direction="maximize", sampler=tree_search.MCTSSampler(0))
study.optimize(lambda t: t.suggest_categorical("a", [0, 1, 2]) + t.suggest_float("u", 0, 1), n_trials=20)
print(len(study.trials), tree_search.read_tree(study).visits)
"""


def test_the_copied_folder_searches_where_neither_autokd_nor_torch_can_be_imported(tmp_path: Path) -> None:
    source = Path(autokd.search.mcts.__file__).parent
    shutil.copytree(source, tmp_path / "tree_search", ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-c", SCRIPT.format(folder=str(tmp_path))]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert found.stdout.split() == ["20", "20"]
