"""Copy the packages into a checkout of OptunaHub's registry, with the sampler's code in place of the link to it.

    python integrations/optunahub/publish.py PATH/OF/optunahub-registry

The folder ``mcts`` of the sampler's package is a link to ``autokd/search/mcts``: there is one copy of the code.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

PACKAGE = Path(__file__).parent / "package"


def publish(registry: Path) -> list[Path]:
    """Copy every package, links followed; return the folders that were written.

    Args:
        registry: root of the checkout; its folder ``package`` is made if it is absent.
    """
    written = []
    for source in sorted(path.parent for path in PACKAGE.glob("*/*/README.md")):
        target = registry / "package" / source.relative_to(PACKAGE)
        if target.exists():
            shutil.rmtree(target)
        shutil.copytree(source, target, symlinks=False, ignore=shutil.ignore_patterns("__pycache__"))
        written.append(target)
    return written


if __name__ == "__main__":
    for folder in publish(Path(sys.argv[1])):
        print(folder)
