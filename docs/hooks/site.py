"""Builds what the site has beside the pages of ``docs/``: MkDocs runs this file (``mkdocs.yml``, ``hooks``).

The repository's own Markdown is the one source. A page's links lead to files of the repository, as GitHub shows them;
here they become links of the site. A link to a file that is no page becomes plain text, unless ``repo_url`` is set.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
FRONT = {"README.md": "index.md"}
"""Pages of the repository's root that have another name on the site."""
ROOT_PAGES = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
PICTURES = {".svg", ".png", ".webp"}
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\]|!\[[^\]]*\]\([^)]*\))*)\]\(([^)\s]+)\)")
_FENCE = re.compile(r"(^```.*?^```[ \t]*$)", re.MULTILINE | re.DOTALL)
_PARAMETER = re.compile(r"<(\w+)>")
"""A parameter in a formula, ``<size>``; ``<a, b>`` is an inner product."""
_HEAD = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the repository's root and of the experiments, and the generated references."""
    for origin in _origins():
        target = _site_path(origin)
        if files.get_file_from_path(target) is None:
            files.append(_file(config, target, origin))
    for path, content in _generated():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Make the links of a page lead to the site's pages; drop the YAML head of an experiment's README."""
    origin = _origin_of(page.file.src_uri)
    if origin is None:
        return markdown
    text = _operators() if origin == "docs/operators.md" else _HEAD.sub("", markdown)
    parts = _FENCE.split(text)  # links in code are code
    parts[::2] = [
        _LINK.sub(lambda found: _link(found, origin, page.file.src_uri, config, files), p) for p in parts[::2]
    ]
    return "".join(parts)


def _origins() -> Iterator[str]:
    """Paths in the repository of what the site shows beside ``docs/``."""
    yield from (name for name in ROOT_PAGES if (ROOT / name).is_file())
    for path in sorted((ROOT / "experiments").rglob("*")):
        if path.name == "README.md" or path.suffix in PICTURES:
            yield path.relative_to(ROOT).as_posix()


def _site_path(origin: str) -> str:
    return FRONT.get(origin, origin.removeprefix("docs/"))


def _origin_of(site_path: str) -> str | None:
    """Return the repository's path of a page; None if it was generated."""
    back = {site: origin for origin, site in FRONT.items()}
    for origin in (back.get(site_path, site_path), f"docs/{site_path}"):
        if (ROOT / origin).is_file():
            return origin
    return None


def _file(config: MkDocsConfig, target: str, origin: str) -> File:
    return File.generated(config, target, abs_src_path=str(ROOT / origin))


def _link(found: re.Match[str], origin: str, source: str, config: MkDocsConfig, files: Files) -> str:
    is_picture, text, address = found[1], found[2], found[3]
    inner = _LINK.sub(lambda nested: _link(nested, origin, source, config, files), text)
    if re.match(r"[a-z]+:|#", address):
        return f"{is_picture}[{inner}]({address})"
    path, mark, anchor = address.partition("#")
    target = posixpath.normpath(posixpath.join(posixpath.dirname(origin), path))
    site = next((p for p in _pages_of(target) if files.get_file_from_path(p) is not None), None)
    if site is not None:
        return f"{is_picture}[{inner}]({posixpath.relpath(site, posixpath.dirname(source) or '.')}{mark}{anchor})"
    if config.repo_url:
        return f"{is_picture}[{inner}]({config.repo_url.rstrip('/')}/blob/main/{target})"
    return inner


def _pages_of(target: str) -> Iterator[str]:
    """The site's paths that a link to a file or a folder of the repository may mean."""
    yield _site_path(target)
    yield _site_path(f"{target}/README.md")


# ---------------------------------------------------------------------------------------- generated references


def _generated() -> Iterator[tuple[str, str]]:
    yield "reference/cli.md", _command_line()
    for module in public_modules():
        yield f"reference/api/{module}.md", f"# `{module}`\n\n::: {module}\n"
    yield "reference/api/index.md", _api_index()


def _operators() -> str:
    """The page of operators with formulas in mathematical type, which GitHub would not show."""
    from autokd.report.mathml import formula_mathml
    from autokd.spec.reference import reference

    return reference(lambda formula: formula_mathml(_PARAMETER.sub(r" \1 ", formula)).replace("|", "&#124;"))


def _command_line() -> str:
    """The help of every command, as Typer writes it."""
    import typer
    from typer.cli import get_docs_for_click

    from autokd.cli import app

    command = typer.main.get_command(app)
    context = typer.Context(command, info_name="autokd")
    return get_docs_for_click(obj=command, ctx=context, name="autokd", title="The command line").strip() + "\n"


def public_modules() -> list[str]:
    """Return the packages and modules whose names are public: those of ``tests/test_docstrings.py``."""
    text = (ROOT / "tests" / "test_docstrings.py").read_text(encoding="utf-8")
    block = re.search(r"^PUBLIC = \((.*?)^\)", text, re.MULTILINE | re.DOTALL)
    assert block is not None, "tests/test_docstrings.py lists the public modules as PUBLIC"
    return re.findall(r'"([\w.]+)"', block[1])


def _api_index() -> str:
    lines = [f"- [`{module}`]({module}.md)" for module in public_modules()]
    return (
        "# Python API\n\nPublic packages and modules; what they do not name may change.\n\n" + "\n".join(lines) + "\n"
    )
