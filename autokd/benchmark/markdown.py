"""Tables in a README, between a marker of their name and ``<!-- end -->``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

END = "<!-- end -->"


def write_table(readme: Path, name: str, lines: Sequence[str]) -> None:
    """Put ``lines`` where ``<!-- name -->`` stands; SystemExit if the file has no such place."""
    text = readme.read_text(encoding="utf-8")
    before, begin, rest = text.partition(f"<!-- {name} -->\n")
    if not begin or END not in rest:
        raise SystemExit(f"{readme}: no '<!-- {name} -->' with '{END}' behind it. Write both where the table belongs.")
    readme.write_text(before + begin + "\n".join(lines) + "\n" + rest[rest.index(END) :], encoding="utf-8")
