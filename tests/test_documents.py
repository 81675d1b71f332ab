"""YAML is data, and no more of it than AutoKD's files can be: bounds, merge keys, and errors that name the line."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time

import pytest

from autokd.documents import MAX_BYTES, MAX_DEPTH, MAX_VALUES, dump_yaml, load_document
from autokd.errors import ConfigError

ALIASES = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9)
)
MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}\n" for i in range(1, 9))


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        (ALIASES, 1, "more than"),
        (MERGES, 1, "more than"),
        ("a: &a [*a]\n", 1, "deep within each other"),
        ("a: &a {b: *a}\n", 1, "deep within each other"),
        ("a: &a {<<: *a}\n", 1, "deep within each other"),
        ("a:\n  " + "[" * 3000 + "]" * 3000 + "\n", 2, "deep within each other"),
        ("a:\n  " + "[" * 3000, 2, "deep within each other"),
        ("a: " + "{b: " * 3000, 1, "deep within each other"),
        ("- " * 3000 + "a\n", 1, "deep within each other"),
        ("a: 1\nb: !!int foo\n", 2, "'foo' cannot be read as int"),
        ("a: 1\nb: !!bool foo\n", 2, "'foo' cannot be read as bool"),
        ("a: 1\nb: !!float foo\n", 2, "'foo' cannot be read as float"),
        ("a: 1\nb: " + "9" * 5000 + "\n", 2, "cannot be read as int"),
        ("a: 1\nb: " + "9" * 400 + "\n", 2, "cannot be read as int"),
        ("a: 1\nb: 9223372036854775808\n", 2, "cannot be read as int"),
        ("a: 1\nname: 2024-01-01\n", 2, "read as a date. Put it into quotes"),
        ("a: !!python/object/apply:os.system [id]\n", 1, "is refused: a document holds data only"),
        ("a: 1\n!!python/name:os.system : 2\n", 2, "is refused: a document holds data only"),
        ("a: !!set {b, c}\n", 1, "is refused"),
        ("a: 1\nb: {<<: 3}\n", 2, "merges mappings alone"),
        ("a: 1\nb: {<<: [{c: 1}, 2]}\n", 2, "merges mappings alone"),
        ("a: 1\n? [b]\n: 2\n", 2, "a key must be a plain word"),
        ("a: 1\nb: *nowhere\n", 2, "not valid YAML"),
    ],
)
def test_what_is_no_plain_small_data_is_refused_with_its_line_within_a_second(text, line, said):
    before = time.process_time()
    with pytest.raises(ConfigError, match=said) as caught:
        load_document(text)
    assert str(caught.value).startswith(f"<text>:{line}: ") or said == "more than"
    assert len(str(caught.value)) < 600
    assert time.process_time() - before < 5  # a loaded machine's seconds; without bounds it was 91


def test_aliases_and_merge_keys_are_read():
    text = "base: &base {epochs: 3, seeds: [1, 2]}\nother: &other {epochs: 4, width: 5}\n"
    document = load_document(text + "full:\n  width: 6\n  <<: [*base, *other]\nsame: *base\n")
    # The mapping's own keys win, then those of the first that is merged (https://yaml.org/type/merge.html).
    assert document.data["full"] == {"width": 6, "epochs": 3, "seeds": [1, 2]}
    assert document.data["same"] == document.data["base"] == {"epochs": 3, "seeds": [1, 2]}
    assert document.where(("full", "width")) == "<text>:4: full.width"
    assert document.where(("full", "epochs")) == "<text>:1: full.epochs"


def test_what_lies_just_within_the_bounds_is_read():
    data = current = []
    for _ in range(MAX_DEPTH - 2):
        current.append([])
        current = current[0]
    assert load_document(dump_yaml({"a": data})).data == {"a": data}
    numbers = list(range(20_000))
    assert load_document(f"a: {numbers}\n").data == {"a": numbers}
    assert MAX_VALUES > 20_000


def test_files_that_are_too_large_or_have_impossible_names_are_refused(tmp_path):
    (tmp_path / "large.yaml").write_text("a: 1\n" * (MAX_BYTES // 5 + 1))
    with pytest.raises(ConfigError, match=r"large\.yaml: larger than 512 KiB"):
        load_document(tmp_path / "large.yaml")
    with pytest.raises(ConfigError, match="larger than 512 KiB"):
        load_document("/dev/zero")
    with pytest.raises(ConfigError, match="cannot be read") as caught:
        load_document("x" * 10_000)
    assert len(str(caught.value)) < 1000
    with pytest.raises(ConfigError, match="cannot be read"):
        load_document("a\0b")


def test_a_pipe_can_be_read(tmp_path):
    """A shell's <(...) is a pipe."""
    read, write = os.pipe()
    os.write(write, b"a: 1\n")
    os.close(write)
    try:
        assert load_document(f"/dev/fd/{read}").data == {"a": 1}
    finally:
        os.close(read)


def test_a_bomb_of_aliases_takes_no_memory(tmp_path):
    (tmp_path / "bomb.yaml").write_text(ALIASES)
    code = "import sys; from autokd.documents import load_document; load_document(sys.argv[1])"
    limit = 400 * 2**20

    def bounded():
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    command = [sys.executable, "-c", code, str(tmp_path / "bomb.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=bounded, timeout=120)
    assert "ConfigError" in done.stderr, done.stderr
    assert "MemoryError" not in done.stderr
