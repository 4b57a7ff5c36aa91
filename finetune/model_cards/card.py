"""The model card: what was really run and measured, as the Hub reads it.

Values come from data, file names and labels, so none is trusted: the template runs in a sandbox, the
front matter is written by the YAML library, and every value is made one line without Markdown structure.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Literal

from .snippets import PLACEHOLDER, snippet

__all__ = ["PLACEHOLDER", "CardFacts", "model_card"]

Kind = Literal[
    "text_classification",
    "text_regression",
    "text_multi_label",
    "image_classification",
    "image_multi_label",
    "masked_language",
    "token_classification",
    "question_answering",
]

_TASKS: dict[Kind, tuple[str, str]] = {
    "text_classification": ("text-classification", "A text classifier"),
    "text_regression": ("text-classification", "A model that gives a text a number"),
    "text_multi_label": ("text-classification", "A text classifier that may give several labels"),
    "image_multi_label": ("image-classification", "An image classifier that may give several labels"),
    "image_classification": ("image-classification", "An image classifier"),
    "masked_language": ("fill-mask", "A masked language model"),
    "question_answering": ("question-answering", "A model that finds the answer to a question in a text"),
    "token_classification": ("token-classification", "A model that tags the words of a text"),
}
_HUB_NAMES = {  # of the metrics as https://huggingface.co/metrics spells them
    "matthews": "matthews_correlation",
    "pearson": "pearsonr",
    "spearman": "spearmanr",
}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_ABSOLUTE = re.compile(r"(?<![\w.:/-])(?:~|[A-Za-z]:)?[\\/](?:[^\s\\/'\"`|,;]+[\\/])+([^\s\\/'\"`|,;]*)")
_ROOTED = re.compile(r"(?:~|[A-Za-z]:)?[\\/][^\\/]+[\\/].*")


@dataclass(frozen=True)
class CardFacts:
    """What a run knows about itself, in plain values.

    Args:
        title: A name for people, such as the run folder's.
        task: What the model is for.
        library: What opens ``model/``; the base's library is ``base_library`` where that is an adapter.
        base_model: A Hub id, ``timm:<name>``, or another name; empty when trained from random weights.
        strategy: The strategy's name in the configuration, such as ``gradual_unfreeze``.
        data: A Hub dataset id, or a description.
        splits: Examples by split.
        labels: Names of the classes, in order; empty for regression.
        results: Metric by name, by split; the best model's.
        baselines: The same by name of a baseline, on the last split of ``results``.
        settings: Optimizer, LR, schedule, batch size, length, seed, precision ..., as they ran, in order.
        plan: The lines of ``finetune plan`` that say what trains when.
        trained_parameters: How many trained in any phase.
        parameters: How many there are.
        seconds: Wall-clock time of training.
        hardware: Devices and processes, such as ``"2 x NVIDIA H200"``; no host name.
        versions: By package.
        limits: What a user must know, one sentence each; what is always true is added.
        languages: ISO 639 codes.
        license: As the Hub spells it, such as ``"apache-2.0"``.
    """

    title: str
    task: Kind
    library: Literal["transformers", "timm", "peft"]
    base_model: str
    strategy: str
    data: str
    base_library: Literal["transformers", "timm"] = "transformers"
    splits: Mapping[str, int] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    results: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    baselines: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    plan: tuple[str, ...] = ()
    trained_parameters: int = 0
    parameters: int = 0
    seconds: float = 0.0
    hardware: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    limits: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    license: str = ""


def model_card(facts: CardFacts) -> str:
    """The whole README.md; it names the repository ``PLACEHOLDER`` until :func:`publish` knows it."""
    from jinja2 import StrictUndefined
    from jinja2.sandbox import SandboxedEnvironment

    environment = SandboxedEnvironment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, autoescape=False
    )
    environment.filters |= {
        "line": _markdown,
        "cell": _markdown,
        "code": _code,
        "label": _label,
        "code_line": _code_line,
    }
    environment.filters["number"] = _number
    template = environment.from_string(files(__package__).joinpath("card.md.jinja").read_text(encoding="utf-8"))
    body = template.render(
        facts=facts,
        description=_TASKS[facts.task][1] + (f" with {len(facts.labels)} classes." if facts.labels else "."),
        base_id=_hub_base(facts),
        data_id=_hub_id(facts.data),
        snippet=snippet(facts, base=_code(facts.base_model.removeprefix("timm:"))),
        metrics=list(dict.fromkeys(name for scores in facts.results.values() for name in scores)),
        limits=_limits(facts),
    )
    body = re.sub(r"\n{3,}", "\n\n", body)
    return f"---\n{_front_matter(facts)}\n---\n\n{body.strip()}\n"


def _front_matter(facts: CardFacts) -> str:
    from huggingface_hub import ModelCardData

    base, data = _hub_base(facts), _hub_id(facts.data)
    tags = ["finetune-toolkit", _slug(facts.strategy)]
    if facts.library == "peft":
        tags += [facts.base_library] + ([f"base_model:adapter:{base}"] if base else [])
    metrics = dict.fromkeys(name for scores in facts.results.values() for name in scores)
    card = ModelCardData(
        language=[_line(code) for code in facts.languages] or None,
        license=_line(facts.license) or None,
        library_name=facts.library,
        pipeline_tag=_TASKS[facts.task][0],
        tags=tags,
        base_model=base or None,
        base_model_relation=("adapter" if facts.library == "peft" else "finetune") if base else None,
        datasets=[data] if data else None,
        metrics=[_HUB_NAMES.get(name, _line(name)) for name in metrics] or None,
        model_name=_line(facts.title),
        eval_results=_eval_results(facts) or None,
    )
    return card.to_yaml()


def _eval_results(facts: CardFacts) -> list:
    """One entry per split and metric; what is not finite has no place in a model index."""
    from huggingface_hub import EvalResult

    name = _hub_id(facts.data) or _line(facts.data)
    return [
        EvalResult(
            task_type=_TASKS[facts.task][0],
            dataset_type=_hub_id(facts.data) or _slug(facts.data),
            dataset_name=name,
            dataset_split=_line(split),
            metric_type=_HUB_NAMES.get(metric, _line(metric)),
            metric_name=_line(metric),
            metric_value=round(float(value), 6),
        )
        for split, scores in facts.results.items()
        for metric, value in scores.items()
        if math.isfinite(value)
    ]


def _limits(facts: CardFacts) -> list[str]:
    always = ["Measured on the splits above and nowhere else: on other data it may do worse, so measure there first."]
    if facts.task.endswith("_multi_label"):
        always.append(
            "Each label has a probability of its own (sigmoid). The scores above count a label as given from 0.5 on, "
            "which is seldom the best threshold."
        )
    elif facts.labels:
        always.append("It answers with one of its labels even where none fits.")
    if facts.base_model:
        always.append("What the base model has learned, its biases too, is still in it.")
    return [*facts.limits, *always]


def _hub_base(facts: CardFacts) -> str:
    """The base's Hub id; timm's own names stand for repositories of the ``timm`` organisation."""
    name = facts.base_model.removeprefix("timm:")
    if name != facts.base_model and "/" not in name:
        name = f"timm/{name}" if name else ""
    return _hub_id(name)


def _hub_id(name: str) -> str:
    """``name`` if it can be an id of the Hub, with its owner; else nothing."""
    return name if "/" in name and _HUB_ID.fullmatch(name) else ""


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", _line(text).lower()).strip("-")[:60] or "unnamed"


def _line(value: object) -> str:
    """One line without control characters, and without the folders of this machine."""
    text = _one_line(value)
    if _ROOTED.fullmatch(text):  # a path as a whole, blanks and all
        return re.split(r"[\\/]", text.rstrip("\\/"))[-1]
    return _ABSOLUTE.sub(lambda match: match[1] or "(a folder)", text)


def _one_line(value: object) -> str:
    return " ".join("".join(char if char.isprintable() else " " for char in str(value)).split())


def _markdown(value: object) -> str:
    """Text that stays text in Markdown: no table cell, link, heading, code or HTML of its own."""
    return re.sub(r"([\\`*_\[\]|<>#{}])", r"\\\1", _line(value)).replace("\\_", "_")


def _code(value: object) -> str:
    return _line(value).replace("`", "'")


def _label(value: object) -> str:
    return _one_line(value).replace("`", "'")  # a label such as /m/0dgw9r is no path


def _code_line(value: object) -> str:
    """A row of a table in a code block: its blanks are kept."""
    text = "".join(char if char.isprintable() else " " for char in str(value)).replace("```", "'''")
    return _ABSOLUTE.sub(lambda match: match[1] or "(a folder)", text).rstrip()


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if math.isfinite(value) else "not defined"
