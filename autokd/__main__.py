"""``python -m autokd``."""

from autokd.cli import main

main()
