"""``python -m autokd.mmcv_ops SCRIPT [ARGUMENT ...]``: run a script of MMDetection with the operators provided.

For scripts that import ``mmcv.ops`` before they read a config (``tools/test.py``), so that ``custom_imports`` comes too
late, and for configs that are not to be changed. Under torchrun: ``torchrun ... -m autokd.mmcv_ops SCRIPT ...``.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from autokd.mmcv_ops import provide_mmcv_ops


def main() -> None:
    """Give the script the arguments and the import path that ``python SCRIPT`` would."""
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print(__doc__)
        return
    if not Path(sys.argv[1]).is_file():
        sys.exit(f"python -m autokd.mmcv_ops: there is no script {sys.argv[1]!r}")
    provide_mmcv_ops()
    del sys.argv[0]
    sys.path[0] = str(Path(sys.argv[0]).resolve().parent)
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
