"""YAML as configuration needs it: safe, small, every value with its line, and no word turned into something else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ..errors import ConfigError

MAX_BYTES = 1_000_000
MAX_VALUES = 20_000  # counted after aliases are followed, so that a small file cannot describe a huge one
MAX_DEPTH = 30
_TOO_MANY = f"more than {MAX_VALUES:,} values once its aliases are followed"

_TAG = "tag:yaml.org,2002:"
_PATTERNS = {
    "bool": r"true|True|TRUE|false|False|FALSE",
    "null": r"~|null|Null|NULL|",
    "int": r"[-+]?(?:0|[1-9][0-9_]*)",
    "float": r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
}
IMPLICIT = {_TAG + kind: re.compile(rf"(?:{pattern})\Z") for kind, pattern in _PATTERNS.items()}


class Document(NamedTuple):
    """A YAML mapping, and the line of each value by its dotted path."""

    tree: dict[str, Any]
    lines: dict[str, int]


class _Loader(yaml.SafeLoader):
    """Few things but words: ``yes``, ``no``, ``on``, ``off``, dates and ``1:30`` stay words, ``3e-5`` is a number."""

    yaml_implicit_resolvers: dict[str | None, list[tuple[str, re.Pattern[str]]]] = {}
    depth = num_nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.depth += 1
        self.num_nodes += 1
        for count, most, what in (
            (self.depth, MAX_DEPTH, f"nested deeper than {MAX_DEPTH}"),
            (self.num_nodes, MAX_VALUES, _TOO_MANY),
        ):
            if count > most:
                raise yaml.MarkedYAMLError(problem=what, problem_mark=self.peek_event().start_mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


for _tag, _pattern in IMPLICIT.items():
    _Loader.add_implicit_resolver(_tag, _pattern, None)


def read_file(path: Path) -> Document:
    """The mapping in a YAML file.

    Raises:
        ConfigError: It cannot be read, is no YAML, too large, or its top level is no mapping.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}. Give a YAML file that can be read.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start}). Save it as UTF-8.") from error
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{path}: larger than {MAX_BYTES:,} bytes, which no configuration is. Give another file.")
    return read_text(text, origin=str(path))


def read_text(text: str, *, origin: str) -> Document:
    """The mapping in ``text``; ``origin`` names it in messages.

    Raises:
        ConfigError: It is no YAML, or its top level is no mapping.
    """
    node = _composed(text, origin)
    if node is None:
        raise ConfigError(f"{origin}: empty. Write 'key: value' lines, or leave the file out.")
    reader = _Reader(origin)
    tree = reader.read(node)
    if not isinstance(tree, dict):
        raise ConfigError(f"{origin}: a {_kind_of(tree)} at the top level; expected 'key: value' lines.")
    return Document(tree, reader.lines)


def read_value(text: str) -> Any:
    """The value of ``key=value``: a list or mapping in brackets, a quoted word, or a bare word, number or ``null``.

    Raises:
        ConfigError: Brackets or quotes that do not close.
    """
    text = text.strip()
    if text[:1] in tuple("[{'\""):
        node = _composed(text, repr(text))
        return _Reader(repr(text)).read(node) if node is not None else None
    # Not parsed as a document: 'runs/a #1' has no comment, and '*' is no alias.
    try:
        return _scalar(yaml.ScalarNode(_implicit_tag(text), text))
    except ValueError:  # a number of thousands of digits
        return text


def _composed(text: str, origin: str) -> yaml.Node | None:
    loader = None
    try:
        loader = _Loader(text)
        return loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        line = f" line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{origin}{line}: not YAML: {error.problem or error.context}. Correct that line.") from error
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{origin}: not YAML: {' '.join(str(error).split())}. Correct it.") from error
    finally:
        if loader is not None:
            loader.dispose()


class _Reader:
    """Turns nodes into plain values; refuses tags, equal keys, loops and too many values."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.lines: dict[str, int] = {}
        self.num_values = 0
        self.open: set[int] = set()
        self.faults: list[str] = []

    def read(self, node: yaml.Node) -> Any:
        """The value of the whole.

        Raises:
            ConfigError: Everything that is refused in it.
        """
        found = self.value(node, "")
        if self.faults:
            raise ConfigError("\n".join(self.faults))
        return found

    def value(self, node: yaml.Node, path: str) -> Any:
        self.num_values += 1
        if self.num_values > MAX_VALUES:
            raise ConfigError("\n".join([*self.faults, self.said(node, _TOO_MANY)]))
        if id(node) in self.open:
            return self.fault(node, "an alias to something that holds it")
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node)
        self.open.add(id(node))
        found = self.mapping(node, path) if isinstance(node, yaml.MappingNode) else self.sequence(node, path)
        self.open.discard(id(node))
        return found

    def scalar(self, node: yaml.ScalarNode) -> Any:
        if node.tag.removeprefix(_TAG) not in {*_PATTERNS, "str"}:
            return self.tag_fault(node)
        try:
            return _scalar(node)
        except ValueError:
            return self.fault(node, f"{node.value[:40]!r} is no {node.tag.removeprefix(_TAG)} that can be read")

    def mapping(self, node: yaml.MappingNode, path: str) -> dict[str, Any]:
        if node.tag != _TAG + "map":
            self.tag_fault(node)
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self.value(key_node, path)
            if not isinstance(key, str):
                self.fault(key_node, f"the key {repr(key)[:40]} is no word")
                continue
            here = f"{path}.{key}" if path else key
            if key in found:
                self.fault(key_node, f"{here} is given twice (first on line {self.lines[here]})")
            self.lines[here] = key_node.start_mark.line + 1
            found[key] = self.value(value_node, here)
        return found

    def sequence(self, node: yaml.Node, path: str) -> list[Any]:
        if node.tag != _TAG + "seq":
            self.tag_fault(node)
        found = []
        for index, item in enumerate(node.value):
            self.lines[f"{path}[{index}]"] = item.start_mark.line + 1
            found.append(self.value(item, f"{path}[{index}]"))
        return found

    def tag_fault(self, node: yaml.Node) -> None:
        self.fault(node, f"the tag {node.tag.replace(_TAG, '!!')}; only plain values are read")

    def fault(self, node: yaml.Node, what: str) -> None:
        self.faults.append(self.said(node, what))

    def said(self, node: yaml.Node, what: str) -> str:
        return f"{self.origin} line {node.start_mark.line + 1}: {what}. Correct that line."


def _implicit_tag(text: str) -> str:
    return next((tag for tag, pattern in IMPLICIT.items() if pattern.match(text)), _TAG + "str")


def _scalar(node: yaml.ScalarNode) -> Any:
    kind, text = node.tag.removeprefix(_TAG), node.value
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() == "true"
    if kind == "int":
        return int(text.replace("_", ""))
    if kind == "float":
        return float(text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text


def _kind_of(value: Any) -> str:
    return {list: "list", str: "word", int: "number", float: "number"}.get(type(value), "single value")
