"""Metrics that are not ours: ``evaluate`` objects, local metric scripts, and scripts from the Hub."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..choices import nearest
from ..errors import ConfigError
from ..models.offline import go_offline, hub_is_offline
from .scores import METRICS, Direction, Metric, Undefined, log_probabilities

_REVISION = re.compile(r"[0-9a-f]{40}")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class External:
    """A metric that ``evaluate`` computes, and which way is better.

    Args:
        source: An ``evaluate`` metric object; a metric script or the folder that holds it; or a Hub id,
            which is downloaded code: it runs only with trust and a pinned revision (see :func:`resolve`).
        direction: ``"auto"`` is known where ``key`` is the name of one of our own metrics.
        key: The entry of the metric's result that decides; absent, the metric's own name.
        revision: The commit of a Hub metric, 40 hexadecimal digits.
    """

    source: Any
    direction: Literal["auto", "maximize", "minimize"] = "auto"
    key: str = ""
    revision: str = ""

    __pydantic_config__ = {"extra": "forbid"}


@dataclass(frozen=True)
class Loaded:
    """An ``evaluate`` metric, ready to be computed; the counterpart of :class:`Metric`."""

    module: Any  # evaluate.EvaluationModule, or what evaluate.combine returns
    name: str
    direction: Direction

    @cached_property
    def _inputs(self) -> frozenset[str]:
        features = getattr(self.module, "features", None) or self.module.evaluation_modules[0].features
        first = features[0] if isinstance(features, list) else features
        return frozenset(first)

    def compute(self, *, logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """Every number of the metric's result; predictions are classes, or values where labels are not whole.

        Raises:
            Undefined: The metric cannot be computed on these examples.
            ConfigError: Its result lacks the entry that decides, or it asks for other inputs.
        """
        result = self.module.compute(**self._arguments(logits, labels))
        if not result:
            raise Undefined("it returned nothing")
        numbers = {key: float(value) for key, value in result.items() if np.ndim(value) == 0 and _is_number(value)}
        if self.name not in numbers:
            known = ", ".join(map(repr, numbers)) or "none"
            raise ConfigError(
                f"metric: {self.name!r} is not among the numbers that the metric returned ({known}). "
                "Name the one that decides with `key`."
            )
        return numbers

    def _arguments(self, logits: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
        if labels.dtype == bool and {"predictions", "references"} <= self._inputs:
            return {"predictions": (logits > 0).astype(np.int64), "references": labels.astype(np.int64)}
        classes = np.issubdtype(labels.dtype, np.integer)
        predicted = logits.argmax(axis=-1) if classes else (logits[:, 0] if logits.ndim == 2 else logits)
        if "prediction_scores" in self._inputs and classes:
            probabilities = np.exp(log_probabilities(logits))
            scores = probabilities[:, 1] if logits.shape[1] == 2 else probabilities
            return {"prediction_scores": scores, "references": labels}
        if {"predictions", "references"} <= self._inputs:
            return {"predictions": predicted, "references": labels}
        raise ConfigError(
            f"metric: {self.name!r} reads {', '.join(sorted(self._inputs))}; this toolkit gives 'predictions' (or "
            "'prediction_scores') and 'references'. Wrap it in an evaluate.Metric that reads those."
        )


def resolve(metric: object, *, trusted: Literal["no", "remote code"] = "no") -> Metric | Loaded:
    """The metric behind a name, a path, a Hub id, an ``evaluate`` object or an :class:`External`.

    Args:
        metric: What the user gave.
        trusted: ``"remote code"`` lets a Hub id run, at the revision that its ``External`` pins.

    Raises:
        ConfigError: No such metric; or code that may not run; or a direction that nobody has told.
    """
    if isinstance(metric, Metric | Loaded):
        return metric
    if isinstance(metric, str) and metric in METRICS:
        return METRICS[metric]
    external = metric if isinstance(metric, External) else External(metric)
    module = external.source
    if isinstance(module, str | Path):
        module = _load(str(module), revision=external.revision, trusted=trusted)
    if not hasattr(module, "compute"):
        raise ConfigError(
            f"metric: got {type(module).__name__}, expected a name, the path of a metric script, "
            "or an `evaluate` metric."
        )
    key = external.key or str(getattr(module, "name", ""))
    return Loaded(module, key, _direction(external, key))


def _load(source: str, *, revision: str, trusted: str) -> Any:
    path = Path(source)
    if os.path.exists(path):  # Path's own raises for a name that is too long
        if path.suffix != ".py" and not (path / f"{path.resolve().name}.py").exists():
            raise ConfigError(f"metric: {source} is no metric script, and holds no {path.resolve().name}.py.")
        return _run(str(path.resolve()), revision=None)
    if not _HUB_ID.fullmatch(source) or source.endswith(".py"):
        raise ConfigError(
            f"metric: {source!r} is not known{nearest(source, METRICS)}, and no such file is here. "
            f"Choose one of {', '.join(sorted(METRICS))}, or give the path of a metric script."
        )
    if trusted != "remote code" or not _REVISION.fullmatch(revision):
        raise ConfigError(
            f"metric: {source!r} is a script on the Hub, which would be downloaded and run. To allow it, read it, "
            "then pass --trust-remote-code and pin what you read: "
            f"metric: {{source: {source}, revision: <the commit, 40 hex digits>}}. "
            "Metrics of this toolkit need no download."
        )
    if hub_is_offline():
        go_offline()  # also where the user has said it only to the Hub's own library
    return _run(source, revision=revision)


def _run(script: str, *, revision: str | None) -> Any:
    import evaluate

    try:
        return evaluate.load(script, revision=revision)
    except Exception as fault:  # it is someone's code: whatever it raises, the user is told which script
        reason = " ".join(str(fault).split()) or type(fault).__name__
        if revision is not None and hub_is_offline():
            reason = (
                "it is not in the local cache, and the Hub cannot be reached (or HF_HUB_OFFLINE is set). "
                "Copy the script here, and name its path"
            )
        raise ConfigError(f"metric: {script} cannot be loaded: {reason}") from fault


def _direction(external: External, key: str) -> Direction:
    if external.direction != "auto":
        return external.direction
    if key in METRICS:
        return METRICS[key].direction
    raise ConfigError(
        f"metric: whether a higher {key or 'value'!r} is better is not known. Say so: "
        f"metric: {{source: {external.source if isinstance(external.source, str) else '...'}, direction: maximize}}."
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)
