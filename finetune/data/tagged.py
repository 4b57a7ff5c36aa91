"""Sentences whose words have a tag each: read, checked, and with the classes of train."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any, NamedTuple, final

import numpy as np

from ..choices import listed, nearest
from ..errors import DataError
from ..letters import letter_fault
from ..metrics.entities import OUTSIDE, is_marked, parsed
from .opening import read_rows, split_names
from .presets import resolved
from .rows import Fault, Rows, settle
from .spec import Data, Split
from .splits import held_out, warn_of_leakage
from .table import Table

_WORDS = ("tokens", "words")
_TAGS = ("ner_tags", "tags", "labels", "label", "ner", "pos_tags")
_MARKS = "BIELSU"
_MOST_OTHERS = 20  # classes that are no tags of entities: kinds of words are a few dozen, words have no end


@final
@dataclass(frozen=True, eq=False)
class Sentences:
    """One split.

    Args:
        table: Where they are; its text column holds tuples of words.
        tags: Class of every word, one sentence after the other, (words,) int64; None where the split has none.
        names: The classes, in the order of the model's outputs.
    """

    table: Table
    tags: np.ndarray | None
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.table)

    def words(self) -> Iterable[tuple[str, ...]]:
        """The words of each sentence."""
        column = self.table.rows.columns[self.table.text[0]]
        return (column[position] for position in self.table.positions.tolist())

    @cached_property
    def offsets(self) -> np.ndarray:
        """Sentence i has the words ``offsets[i]`` to ``offsets[i + 1]``, (sentences + 1,) int64."""
        counts = np.fromiter(map(len, self.words()), np.int64, count=len(self))
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])

    @cached_property
    def fingerprint(self) -> str:
        """xxh3-128 over words, tags and classes, in their order; 32 hex digits."""
        import xxhash

        state = xxhash.xxh3_128(repr((self.table.fingerprint, self.names)).encode())
        if self.tags is not None:
            state.update(self.tags.tobytes())
        return state.hexdigest()


class _Read(NamedTuple):
    """Rows that can be used, and the tags of all rows; None where there are none."""

    table: Table
    tags: list[tuple[str, ...] | None] | None


def read_sentences(
    data: Data, split: Split, *, names: Sequence[str] | None = None, train: Sentences | None = None
) -> Sentences:
    """Read one split, with every sentence checked.

    Args:
        data: Where the splits are.
        split: The split to read.
        names: The classes, in their order; None takes those of train.
        train: The training split, when it is there already.

    Raises:
        DataError: The split does not exist or does not fit the task; names files, rows and columns.
    """
    data = _checked(resolved(data, images=False))
    if split == "train" or split in data.shares:
        whole = _read(data, "train")
        names = tuple(names) if names is not None else classes_of(_kept(whole), source=whole.table.rows.source)
        table = held_out(whole.table, data.shares)[split] if data.shares else whole.table
        return _sentences(whole._replace(table=table), names)
    there = split_names(data)
    if split not in there:
        raise DataError(f"task.data has no {split} split; it has {listed(there)}. Set task.data.{split}.")
    if names is None:
        train = train or read_sentences(data, "train")
        names = train.names
    found = _read(data, split)
    if train is not None:
        warn_of_leakage(train.table, found.table, split)
    return _sentences(found, tuple(names))


def classes_of(tags: Iterable[Sequence[str]], *, source: str) -> tuple[str, ...]:
    """The classes of a training split: O, then type by type; with the marks of a type that happen not to occur.

    Args:
        tags: Of each sentence.
        source: For messages.

    Raises:
        DataError: They do not look like tags.
    """
    every = list(chain.from_iterable(tags))
    found = set(every)
    if len(found) < 2:
        raise DataError(f"{source}: every word has the same tag ({listed(found)}). Expected at least two.")
    first = [OUTSIDE] if OUTSIDE in found else []
    _warn_of_marks(found, source)
    if is_marked(found):
        marks = sorted({tag[0] for tag in found if tag != OUTSIDE}, key=_MARKS.index)
        kinds = sorted({parsed(tag).kind for tag in found if tag != OUTSIDE})
        return (*first, *(f"{mark}-{kind}" for kind in kinds for mark in marks))
    if len(found) > _MOST_OTHERS and len(found) > len(every) / 2:
        raise DataError(
            f"{source}: {len(found)} tags on {len(every)} words ({listed(sorted(found), most=3)}). "
            "Name the column with the tags as task.data.label."
        )
    return (*first, *sorted(found - {OUTSIDE}))


def _warn_of_marks(found: set[str], source: str) -> None:
    """Say which tags have no mark where others have one, such as a 0 among ``O``."""
    if lacking := sorted(tag for tag in found if tag != OUTSIDE and not is_marked([tag])):
        if len(lacking) + 1 < len(found):
            warnings.warn(
                f"{source}: {listed(lacking)} are tags without the mark that others have (B-, I- …), and each of them "
                "counts as a kind of entity. Correct them if they should be others.",
                stacklevel=3,
            )


def _checked(data: Data) -> Data:
    """Refuse what is for other tasks.

    Raises:
        DataError: Names the option.
    """
    for key, value, fits in (
        ("image", data.image, data.image is None),
        ("separator", data.separator, data.separator is None),
        ("text", data.text, data.text is None or isinstance(data.text, str)),
        ("label", data.label, data.label is None or isinstance(data.label, str)),
    ):
        if not fits:
            raise DataError(
                f"task.data.{key}: got {value!r}; token classification reads one column of words (text) and one of "
                "their tags (label)."
            )
    return data


def _read(data: Data, split: Split) -> _Read:
    if split not in split_names(data):
        raise DataError("task.data has no train split. Set task.data.train.")
    rows = read_rows(data, split)
    if not len(rows):
        settle(rows, (), data=data)  # else columns would be missed where it is rows that cannot be read
    words, tags = _columns(rows, data, split)
    values = [tuple(value) if _is_list(value) else value for value in rows.columns[words][:]]
    rows = _with_words(rows, words, values)
    faults = [rows.fault(at, reason) for at, value in enumerate(values) if (reason := _fault(value)) is not None]
    names: list[tuple[str, ...] | None] | None = None
    if tags is not None:
        names, tag_faults = _tags(rows, values, tags, may_lack=split == "test")
        faults += tag_faults
    kept, skipped = settle(rows, faults, data=data)
    return _Read(Table(rows, kept, (words,), skipped=skipped), names)


def _with_words(rows: Rows, column: str, values: list[Any]) -> Rows:
    """The rows with a column of tuples, read once."""
    from dataclasses import replace

    return replace(rows, columns={**rows.columns, column: values})


def _columns(rows: Rows, data: Data, split: Split) -> tuple[str, str | None]:
    """The columns of words and of tags; only a test split may have no tags."""
    names = list(rows.columns)
    is_numbered = names == [str(at) for at in range(len(names))]  # a file in columns
    lists = [name for name in names if any(map(_is_list, rows.columns[name][:1]))]
    assert data.text is None or isinstance(data.text, str)
    assert data.label is None or isinstance(data.label, str)
    if data.text is not None:
        words = _present(rows, data.text, "text")
    else:
        words = "0" if is_numbered else _only(rows, [name for name in lists if name != data.label], _WORDS, "text")
    if words not in lists and not any(map(_is_list, rows.columns[words][:])):
        raise DataError(
            f"{rows.source}: column {words!r} holds no lists of words. Token classification needs them split already: "
            'a file in columns (.conll), or {"tokens": ["A", "word"], "tags": ["O", "O"]}.'
        )
    if data.label is not None and (data.label in names or split != "test"):
        return words, _present(rows, data.label, "label")
    others = [name for name in lists if name != words]
    if split == "test" and not others:
        return words, None
    return words, names[-1] if is_numbered else _only(rows, others, _TAGS, "label")


def _present(rows: Rows, name: str, key: str) -> str:
    if name in rows.columns:
        return name
    raise DataError(
        f"{rows.source} has no column {name!r}{nearest(name, rows.columns)}; it has {listed(rows.columns)}. "
        f"Set task.data.{key} to one of them."
    )


def _only(rows: Rows, lists: list[str], known: tuple[str, ...], key: str) -> str:
    found = [name for name in lists if name.lower() in known] or lists
    if len(found) == 1:
        return found[0]
    what = "words" if key == "text" else "tags"
    which = f"{listed(found)} could each be meant" if found else "none holds lists"
    raise DataError(
        f"{rows.source}: which column holds the lists of {what}? {which}, of {listed(rows.columns)}. "
        f"Set task.data.{key}."
    )


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _fault(words: Any) -> str | None:
    """Why a sentence cannot be used."""
    if not isinstance(words, tuple):
        return f"words are {str(words)[:40]!r} of type {type(words).__name__}, expected a list"
    if not words:
        return "has no words"
    for number, word in enumerate(words, start=1):
        if not isinstance(word, str):
            return f"word {number} is {str(word)[:40]!r} of type {type(word).__name__}, expected text"
        if not word.strip():
            return f"word {number} is empty"
        if reason := letter_fault(word):
            return f"word {number} {reason}"
    return None


def _tags(
    rows: Rows,
    words: list[Any],
    column: str,
    *,
    may_lack: bool,  # noqa: FBT001
) -> tuple[list[tuple[str, ...] | None] | None, list[Fault]]:
    """The tags of every row by name, None where they are faulty; and faults. None where no row has any."""
    values, known = rows.columns[column][:], rows.class_names.get(column)
    if may_lack and not any(values):
        return None, []
    found: list[tuple[str, ...] | None] = []
    faults: list[Fault] = []
    for position, (value, own) in enumerate(zip(values, words, strict=True)):
        tags, reason = _named(value, known)
        if tags is not None and isinstance(own, tuple) and len(tags) != len(own):
            reason = f"{len(own)} words and {len(tags)} tags ({column!r})"
            tags = None
        if reason is not None:
            faults.append(rows.fault(position, reason))
        found.append(tags)
    return found, faults


def _named(value: Any, known: tuple[str, ...] | None) -> tuple[tuple[str, ...] | None, str | None]:
    """The tags of one sentence by name, or what is wrong with them."""
    if not _is_list(value):
        return None, f"tags are {str(value)[:40]!r} of type {type(value).__name__}, expected a list"
    names = []
    for number, tag in enumerate(value, start=1):
        if known is not None and isinstance(tag, int) and 0 <= tag < len(known):
            names.append(known[tag])
        elif known is None and _is_name(tag):
            names.append(str(tag))
        else:
            return None, f"tag {number} is {str(tag)[:40]!r}, expected {'a class' if known else 'a name'}"
    return tuple(names), None


def _is_name(tag: Any) -> bool:
    if not isinstance(tag, str | int) or isinstance(tag, bool):
        return False
    return bool(str(tag).strip()) and letter_fault(str(tag)) is None


def _kept(read: _Read) -> list[tuple[str, ...]]:
    """The tags of the rows that are used."""
    if read.tags is None:
        raise DataError("task.data: the training split has no tags. Name their column: task.data.label=<column>.")
    kept = [read.tags[position] for position in read.table.positions.tolist()]
    return [tags for tags in kept if tags is not None]


def _sentences(read: _Read, names: tuple[str, ...]) -> Sentences:
    """With the number of each tag among the classes.

    Raises:
        DataError: A tag that train does not have; names row and tag.
    """
    if read.tags is None:
        return Sentences(read.table, None, names)
    numbers = {name: number for number, name in enumerate(names)}
    kept = _kept(read)
    unknown = [(at, tag) for at, tags in enumerate(kept) for tag in tags if tag not in numbers]
    if unknown:
        shown = "\n  ".join(f"{read.table.where(at)}: tag {tag!r}" for at, tag in unknown[:5])
        rest = f"\n  and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        raise DataError(
            f"{read.table.rows.source} has tags that train does not have; train has {listed(names, most=30)}.\n"
            f"  {shown}{rest}\nCorrect the tags, or add sentences with them to train."
        )
    flat = np.fromiter((numbers[tag] for tag in chain.from_iterable(kept)), np.int64, count=sum(map(len, kept)))
    return Sentences(read.table, flat, names)
