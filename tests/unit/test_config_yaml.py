"""Reading YAML: words stay words, nothing runs, nothing explodes, and every fault has its line."""

from __future__ import annotations

import pytest

from finetune.config.yaml_reader import MAX_BYTES, read_file, read_text, read_value
from finetune.errors import ConfigError

VALUES = {
    "no": "no",
    "on": "on",
    "off": "off",
    "yes": "yes",
    "true": True,
    "False": False,
    "null": None,
    "~": None,
    "": None,
    "3e-5": 3e-5,
    "1.5E+3": 1500.0,
    ".5": 0.5,
    "-3": -3,
    "1_000": 1000,
    "010": "010",
    "0x1f": "0x1f",
    "1:30": "1:30",
    "2001-01-01": "2001-01-01",
    "50%": "50%",
    "3 epochs": "3 epochs",
    "'2020'": "2020",
    "[head, layer.-1]": ["head", "layer.-1"],
    "{name: lora, rank: 4}": {"name": "lora", "rank": 4},
}


@pytest.mark.parametrize("text", VALUES)
def test_a_value_reads_the_same_in_a_file_and_on_the_command_line(text):
    expected = VALUES[text]
    for found in (read_text(f"key: {text}\n", origin="f.yaml").tree["key"], read_value(text)):
        assert found == expected and type(found) is type(expected)


def test_words_that_yaml_would_not_take_are_words_on_the_command_line():
    for text in ("*", "layer.*", "runs/a #1", "a: b", "@x", "-", "%"):
        assert read_value(text) == text


BOMB = "a: &a [l,l,l,l,l,l,l,l,l]\n" + "".join(
    f"{key}: &{key} [{','.join([f'*{before}'] * 9)}]\n" for before, key in zip("abcdefgh", "bcdefghi", strict=True)
)
REFUSED = {
    "a: !!python/object/apply:os.system [ls]": "line 1: the tag !!python/object/apply:os.system",
    "a: !!python/name:os.system": "the tag",
    "a: !!binary x": "the tag !!binary",
    "!!set {a: 1}": "the tag",
    "a: 1\nb:\n  c: 1\n  c: 2": r"line 4: b.c is given twice \(first on line 3\)",
    "a: &x [*x]": "line 1: an alias to something that holds it",
    "a: *nowhere": "line 1: not YAML",
    BOMB: "more than 20,000 values",
    "a: " + "[" * 200: "nested deeper",
    "a: " + "{b: " * 200: "nested deeper",
    "a: 1\n\tb: 2": "line 2: not YAML",
    "a: b: c": "line 1: not YAML",
    "a: 1\n---\nb: 2": "not YAML",
    "a: \x00": "not YAML",
    "[a, b]": "a list at the top level",
    "word": "a word at the top level",
    "": "empty",
    "# nothing\n": "empty",
    "1: 2": "the key 1 is no word",
    "? [a]\n: b": "is no word",
    "a: [1,": "not YAML",
    "a: 'x": "not YAML",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_refused_is_named_with_its_line(text):
    with pytest.raises(ConfigError, match=REFUSED[text]) as caught:
        read_text(text, origin="f.yaml")
    assert str(caught.value).startswith("f.yaml")


def test_every_value_knows_its_line():
    lines = read_text("a: 1\nb:\n  c: 2\n  d: {e: 3}\n", origin="f.yaml").lines
    assert lines == {"a": 1, "b": 2, "b.c": 3, "b.d": 4, "b.d.e": 4}


def test_files_that_cannot_be_a_configuration(tmp_path):
    binary, large = tmp_path / "binary.yaml", tmp_path / "large.yaml"
    binary.write_bytes(b"a: \xff\xfe")
    large.write_bytes(b"# " + b"x" * MAX_BYTES)
    for path, why in {
        binary: "not UTF-8",
        large: "larger than",
        tmp_path: "directory",
        tmp_path / "x": "No such",
    }.items():
        with pytest.raises(ConfigError, match=why):
            read_file(path)


def test_a_byte_order_mark_and_windows_lines_are_read(tmp_path):
    path = tmp_path / "f.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\r\nb: no\r\n")
    assert read_file(path).tree == {"a": 1, "b": "no"}
