"""``python -m autokd.mmdet_training CHECKPOINT STUDENT``: take the student out of a checkpoint of the training."""

from __future__ import annotations

import sys
from pathlib import Path

from autokd.errors import AutoKDError
from autokd.mmdet_training import take_out_student


def main() -> None:
    if len(sys.argv) != 3 or sys.argv[1] in ("-h", "--help"):
        sys.exit(__doc__)
    try:
        print(take_out_student(Path(sys.argv[1]), Path(sys.argv[2])))
    except AutoKDError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
