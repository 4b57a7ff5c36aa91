"""What a configuration may hold: the closed unions of what is shipped, and what each field may be.

``fit`` is open (any object with the right methods); only text is closed, so that it is typed and runs no code.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt

from ..choices import listed
from ..curricula import Column, Curriculum, DataMapScore, TeacherLoss
from ..data.spec import Data
from ..data.truncation import HeadTailTruncation, HeadTruncation, TailTruncation, TokenizerTruncation
from ..durations import DurationText, IntervalText, LengthText
from ..metrics.external import External
from ..optimizers import SGD, AdamW
from ..policies import Checkpointing, EarlyStopping, NonFinite
from ..precision import Precision
from ..run_config import RunConfig
from ..schedules import (
    Constant,
    CosineRestarts,
    Cyclical,
    Exponential,
    InverseSqrt,
    MultiStep,
    OneCycle,
    Polynomial,
    ReduceOnPlateau,
    SlantedTriangular,
    WarmupCosine,
    WarmupLinear,
    WarmupStableDecay,
)
from ..speed import Speed
from ..strategies import (
    LPFT,
    AutoRGN,
    BitFit,
    Discriminative,
    Freeze,
    FreezeOut,
    Full,
    GradualUnfreeze,
    LoRA,
    Mixout,
    NamedGroups,
    NormTuning,
    Peft,
    Reinitialised,
)
from ..tasks.class_losses import CrossEntropy, Focal
from ..tasks.data_map import DataMap
from ..tasks.growing_length import GrowingLength
from ..tasks.images import ImageClassification
from ..tasks.l2_sp import L2SP
from ..tasks.masked_language import MaskedLanguage
from ..tasks.multi_label import ImageMultiLabel, TextMultiLabel
from ..tasks.patch_dropout import PatchDropout
from ..tasks.progressive import ProgressiveResolution
from ..tasks.question_answering import QuestionAnswering
from ..tasks.selective_backprop import SelectiveBackprop
from ..tasks.self_paced import SelfPaced
from ..tasks.super_loss import SuperLoss
from ..tasks.text import TextClassification, TextRegression
from ..tasks.token_classification import TokenClassification

_ON_TEXTS = (TextClassification, TextRegression, TextMultiLabel)
_ON_IMAGES = (ImageClassification, ImageMultiLabel, ProgressiveResolution, PatchDropout)
_BY_LOSS = (SuperLoss, SelfPaced, SelectiveBackprop)

_STRATEGIES = (
    Full,
    Freeze,
    Discriminative,
    GradualUnfreeze,
    LPFT,
    FreezeOut,
    AutoRGN,
    NamedGroups,
    LoRA,
    Peft,
    BitFit,
    NormTuning,
    Mixout,
    Reinitialised,
)

# By the name of the field; ``name`` in the mapping chooses the class.
UNIONS: dict[str, tuple[type, ...]] = {
    "task": (
        *_ON_TEXTS,
        TokenClassification,
        QuestionAnswering,
        *_ON_IMAGES,
        GrowingLength,
        *_BY_LOSS,
        DataMap,
        MaskedLanguage,
    ),
    "strategy": _STRATEGIES,
    "base": _STRATEGIES,
    "schedule": (
        Constant,
        WarmupLinear,
        WarmupCosine,
        CosineRestarts,
        Polynomial,
        Exponential,
        InverseSqrt,
        MultiStep,
        OneCycle,
        Cyclical,
        SlantedTriangular,
        WarmupStableDecay,
        ReduceOnPlateau,
    ),
    "optimizer": (AdamW, SGD),
    "loss": (CrossEntropy, Focal),
    "truncation": (TokenizerTruncation, HeadTruncation, TailTruncation, HeadTailTruncation),
}

UNIONS["probe_schedule"] = UNIONS["schedule"]

# What a task may wrap: its ``base`` is no strategy.
_WRAPPED: dict[type, tuple[type, ...]] = {
    GrowingLength: _ON_TEXTS,
    ProgressiveResolution: _ON_IMAGES,
    PatchDropout: _ON_IMAGES,
    **dict.fromkeys(_BY_LOSS, (*_ON_TEXTS, *_ON_IMAGES, GrowingLength, DataMap)),
    DataMap: (*_ON_TEXTS, *_ON_IMAGES, GrowingLength, *_BY_LOSS),
}

_WRAPPED[L2SP] = UNIONS["task"]  # the outermost of all
UNIONS["task"] = (*UNIONS["task"], L2SP)

_DIFFICULTIES = (Column, TeacherLoss, DataMapScore)  # beside words

# The field that a single word stands for, where it is not ``name``.
SHORTHAND: dict[type, str] = {Checkpointing: "every", EarlyStopping: "patience", Curriculum: "difficulty"}

CLOSED: frozenset[type] = frozenset(
    {RunConfig, Data, External, Curriculum, Precision, Speed, Checkpointing, EarlyStopping, NonFinite}.union(
        _DIFFICULTIES, *UNIONS.values()
    )
)


@cache
def hints(owner: type) -> dict[str, Any]:
    """The annotation of each field, constraints included."""
    found = typing.get_type_hints(owner, include_extras=True)
    return {item.name: found[item.name] for item in dataclasses.fields(owner) if item.init}


@cache
def components(owner: type, field: str) -> tuple[type, ...]:
    """The classes that a mapping at this field may become; none for plain values."""
    if field == "base" and owner in _WRAPPED:
        return _WRAPPED[owner]
    if field in UNIONS:
        return UNIONS[field]
    return tuple(part for part in _parts(hints(owner).get(field)) if part in CLOSED)


@cache
def takes_words(owner: type, field: str) -> bool:
    """Whether a word of any kind may stand where a component may, and says something else than its name."""
    return str in _parts(hints(owner).get(field))


@cache
def items(owner: type, field: str) -> tuple[type, ...]:
    """The classes that a mapping inside a list at this field may become."""
    inner = [arg for part in _parts(hints(owner).get(field)) if get_origin(part) is tuple for arg in get_args(part)]
    return tuple(part for arg in inner for part in _parts(arg) if part in CLOSED)


@cache
def is_nullable(owner: type, field: str) -> bool:
    """Whether ``null`` may stand at this field."""
    return type(None) in _parts(hints(owner)[field]) or defaults(owner).get(field, ...) is None


def name_of(component: type) -> str | None:
    """The ``name`` that chooses this class; None for a class that is the only one of its field."""
    if "name" not in hints(component) or get_origin(hints(component)["name"]) is not Literal:
        return None
    words = get_args(hints(component)["name"])
    return words[0] if len(words) == 1 else None


def chosen(kinds: tuple[type, ...], name: object) -> type | None:
    """The class that this name means among several; the only one needs no name."""
    if len(kinds) == 1:
        return kinds[0]
    return next((kind for kind in kinds if name_of(kind) == name), None)


def required(owner: type) -> list[str]:
    """The fields without a default."""
    return [name for name in hints(owner) if name not in defaults(owner)]


@cache
def defaults(owner: type) -> dict[str, Any]:
    """The value of each field that has a default."""
    found = {}
    for item in dataclasses.fields(owner):
        if item.default is not dataclasses.MISSING:
            found[item.name] = item.default
        elif item.default_factory is not dataclasses.MISSING:
            found[item.name] = item.default_factory()
    return found


def expected(hint: Any) -> str:
    """What a field takes, in words: ``a whole number, at least 1``."""
    if hint in (DurationText, LengthText, IntervalText):
        return "a duration such as '3 epochs', '500 steps' or '10%'"
    if get_origin(hint) is Annotated:
        kind, *limits = get_args(hint)
        words = [_limit(limit) for limit in limits if isinstance(limit, (Ge, Gt, Le, Lt))]
        return ", ".join([expected(kind), *(word for word in words if word)])
    if get_origin(hint) is Literal:
        return f"one of {listed(get_args(hint), most=30)}"
    if get_origin(hint) is Mapping:
        return f"a mapping, each value {expected(get_args(hint)[1])}"
    if get_origin(hint) is tuple:
        kinds = [arg for arg in get_args(hint) if arg is not ...]
        return (
            f"a list of {len(kinds)}, each {expected(kinds[0])}" if ... not in get_args(hint) else _list_of(kinds[0])
        )
    if get_origin(hint) is dict:
        return f"a mapping of words, each to {expected(get_args(hint)[1])}"
    if len(_parts(hint)) > 1:
        return ", or ".join(dict.fromkeys(expected(part) for part in _parts(hint)))
    plain = {int: "a whole number", float: "a number", str: "a word", bool: "true or false", type(None): "null"}
    return plain.get(hint, "a mapping" if dataclasses.is_dataclass(hint) else "a value")


def _list_of(kind: Any) -> str:
    return "a list of words" if kind is str else f"a list, each {expected(kind)}"


def _limit(limit: Ge | Gt | Le | Lt) -> str:
    number = next(iter(vars(limit).values())) if hasattr(limit, "__dict__") else getattr(limit, limit.__slots__[0])
    if number == float("inf"):
        return ""
    word = {Ge: "at least", Gt: "above", Le: "at most", Lt: "below"}[type(limit)]
    return f"{word} {number:g}"


def _parts(hint: Any) -> tuple[Any, ...]:
    """The members of a union; a single type alone."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
