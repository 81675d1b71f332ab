"""Who answers to ``mmcv._ext``: a real one if it loads, AutoKD's otherwise, nobody where mmcv is absent.

Each case is a process of its own with a pretended mmcv on its path: imports cannot be taken back.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SAY = "from autokd.mmcv_ops import operators_state, provide_mmcv_ops\n"


def run(code: str, path: Path | None = None, *arguments: str) -> str:
    environment = os.environ | {"PYTHONWARNINGS": "default"}
    if path is not None:
        environment["PYTHONPATH"] = os.pathsep.join([str(path), environment.get("PYTHONPATH", "")])
    command = [sys.executable, *(arguments or ("-c", code))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def pretended(tmp_path):
    """Write a package mmcv with the given ``_ext``; return the folder to put on the path."""

    def write(extension: str | None) -> Path:
        (tmp_path / "mmcv").mkdir()
        (tmp_path / "mmcv" / "__init__.py").write_text("")
        if extension is not None:
            (tmp_path / "mmcv" / "_ext.py").write_text(extension)
        return tmp_path

    return write


def test_real_extension_is_left_alone(pretended):
    path = pretended("def nms(*args, **kwargs): return 'compiled nms'\n")
    code = (
        SAY + "print(operators_state(), provide_mmcv_ops(), provide_mmcv_ops())\nimport mmcv._ext as e\nprint(e.nms())"
    )
    assert run(code, path).split("\n")[:2] == ["compiled compiled compiled", "compiled nms"]


def test_extension_that_is_imported_already_is_left_alone(pretended):
    path = pretended(None)
    code = SAY + (
        "import sys, types\nreal = sys.modules['mmcv._ext'] = types.ModuleType('mmcv._ext')\n"
        "print(operators_state(), provide_mmcv_ops(), sys.modules['mmcv._ext'] is real)"
    )
    assert run(code, path).strip() == "compiled compiled True"


def test_missing_extension_is_supplied_once_by_call_or_by_custom_imports(pretended):
    code = SAY + (
        "import sys\nbefore = operators_state(), 'mmcv._ext' in sys.modules\n"
        "import autokd.mmcv_ops.provided\nsupplied = sys.modules['mmcv._ext']\n"
        "print(*before, provide_mmcv_ops(), sys.modules['mmcv._ext'] is supplied)\n"
        "import importlib\ne = importlib.import_module('mmcv._ext')\n"
        "from mmcv import _ext\nprint(_ext is e, callable(e.nms), hasattr(e, '__path__'))"
    )
    lines = run(code, pretended(None)).split("\n")
    assert lines[0] == "supplied by AutoKD False supplied by AutoKD True"
    assert lines[1] == "True True False"


def test_extension_that_does_not_load_is_replaced_with_a_warning(pretended):
    path = pretended("raise ImportError('undefined symbol: _ZN3c10')\n")
    out = run(SAY + "print(provide_mmcv_ops())", path)
    assert "supplied by AutoKD" in out
    assert "undefined symbol: _ZN3c10" in out
    assert "mim install onedl-mmcv" in out


def test_absent_mmcv_is_said_and_nothing_is_done():
    code = (
        "import sys\nsys.modules['mmcv'] = None\n"
        + SAY
        + ("print(operators_state(), provide_mmcv_ops(), 'mmcv._ext' in sys.modules, 'torch' in sys.modules)")
    )
    assert run(code).strip() == "absent absent False False"


def test_scripts_run_with_operators_arguments_and_their_own_folder(pretended, tmp_path):
    path = pretended(None)
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "beside.py").write_text("HERE = 'beside'\n")
    script = tmp_path / "tools" / "train.py"
    script.write_text("import sys, beside, mmcv._ext\nprint(__name__, sys.argv[1:], beside.HERE)\n")
    out = run("", path, "-m", "autokd.mmcv_ops", str(script), "config.py", "--amp")
    assert out.strip() == "__main__ ['config.py', '--amp'] beside"


def test_unsupported_operator_imports_but_says_what_to_do_when_called(mmcv_ops):
    import torch

    from autokd.errors import DetectorError
    from autokd.mmcv_ops import operators_state

    if operators_state() == "compiled":
        pytest.skip("this mmcv is compiled: it has all operators")
    with pytest.raises(DetectorError) as raised:
        mmcv_ops.carafe(torch.rand(1, 1, 2, 2), torch.rand(1, 9, 4, 4), 3, 1, 2)
    for part in ("'carafe_forward'", "no compiled operators", "pip install onedl-mim", "mim install onedl-mmcv"):
        assert part in str(raised.value)
    with pytest.raises(DetectorError, match="pool_mode='avg'"):
        mmcv_ops.roi_align(torch.rand(1, 1, 4, 4), torch.tensor([[0.0, 0, 0, 4, 4]]), 2, 1.0, 0, "max", True)
