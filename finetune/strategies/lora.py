"""Low-rank adapters through PEFT: few weights train, the new ones in full."""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Gt, Lt

from ..choices import listed
from ..layers import LayerGroup, classifier_parameters, plain_name, trunk_path
from .base import Phase
from .composition import base_or_full

if TYPE_CHECKING:
    from torch import nn

_ADAPTER = re.compile(r"\.lora_(A|B|embedding_A|embedding_B|magnitude_vector)\.")


@dataclass(frozen=True, kw_only=True)
class LoRA:
    """Train W + scale * B A with A and B of low rank, and the head (Hu et al. 2021, arXiv 2106.09685, section 4.1).

    Scale is alpha / rank, or alpha / sqrt(rank) with ``scaling="rslora"`` (Kalajdzievski 2023, arXiv 2312.03732).
    Rank 8 and alpha 16 are the authors' code for RoBERTa on GLUE; they adapt query and value only, here every linear
    layer of the trunk is adapted, since no list of names fits all families. What the checkpoint did not supply and
    the classifier train in full and are saved with the adapter (PEFT's ``modules_to_save``), with the whole module
    that holds them.

    Args:
        rank: Of the update.
        alpha: Numerator of the scale.
        dropout: Before A, during training.
        targets: "all", or substrings or regular expressions of the names of linear layers in the trunk.
        scaling: How the scale depends on the rank.
        base: A strategy for the course over the adapters' layers, such as LR decay over depth.
    """

    name: Literal["lora"] = "lora"
    rank: Annotated[int, Ge(1)] = 8
    alpha: Annotated[float, Gt(0)] = 16.0
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.0
    targets: Literal["all"] | tuple[str, ...] = "all"
    scaling: Literal["standard", "rslora"] = "standard"
    base: Any = None

    __pydantic_config__ = {"extra": "forbid"}

    def __post_init__(self) -> None:
        if isinstance(self.base, LoRA):
            raise ValueError("lora cannot be the base of lora; give the rank, or the course (such as discriminative)")
        if self.targets != "all" and (isinstance(self.targets, str) or not self.targets):
            raise ValueError(
                f"targets is 'all' or a list of patterns such as ['query', 'value']; got {self.targets!r}"
            )

    def adapt(self, model: nn.Module, new: Collection[str]) -> nn.Module:
        """PEFT's model; A draws from torch's generator, B is 0, so the function is unchanged at the start.

        Raises:
            ValueError: A target matches no linear layer of the trunk.
        """
        import inspect

        from peft import LoraConfig, TaskType, get_peft_model

        model = base_or_full(self.base).adapt(model, new)
        saved = _saved_modules(model, {*new, *classifier_parameters(model)})
        config = LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            use_rslora=self.scaling == "rslora",
            target_modules=self._target_modules(model, saved),
            modules_to_save=saved,
            task_type=TaskType.SEQ_CLS if "input_ids" in inspect.signature(model.forward).parameters else None,
        )
        with warnings.catch_warnings():  # PEFT 0.21 asks transformers 5 for a name that is going away
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
            return get_peft_model(model, config)

    def groups(self, layers: Sequence[LayerGroup], new: Collection[str]) -> tuple[LayerGroup, ...]:
        """The adapters at their depth, and what is trained in full in the head."""
        below = base_or_full(self.base).groups(layers, new)
        kept = (LayerGroup(name, tuple(filter(_trains, names))) for name, names in below)
        return tuple(group for group in kept if group.parameters)

    def phases(self, groups: Sequence[LayerGroup]) -> tuple[Phase, ...]:
        """The base's course over these groups; without one they all train from the start at the full rate."""
        return base_or_full(self.base).phases(groups)

    def _target_modules(self, model: nn.Module, saved: Sequence[str]) -> list[str]:
        """Qualified names of the linear layers to adapt, so that PEFT guesses nothing."""
        linear = [name for name in _trunk_linears(model) if not any(_within(name, other) for other in saved)]
        if not linear:
            raise ValueError(f"LoRA: {type(model).__name__} has no linear layer in its trunk to adapt")
        if self.targets == "all":
            return linear
        found: set[str] = set()
        for pattern in self.targets:
            matches = [name for name in linear if pattern in name or re.search(pattern, name)]
            if not matches:
                kinds = sorted({re.sub(r"^.*?\.\d+\.", "", name) for name in linear})
                raise ValueError(f"targets: {pattern!r} matches no linear layer of the trunk; it has {listed(kinds)}")
            found.update(matches)
        return [name for name in linear if name in found]


def _trains(name: str) -> bool:
    return bool(_ADAPTER.search(name)) or ".modules_to_save." in name


def _trunk_linears(model: nn.Module) -> list[str]:
    from torch import nn

    trunk = f"{trunk_path(model)}."
    return [name for name, part in model.named_modules() if name.startswith(trunk) and isinstance(part, nn.Linear)]


def _saved_modules(model: Any, names: Collection[str]) -> list[str]:
    """The modules that own these parameters, none inside another.

    PEFT matches by the end of a name, so a head called ``classifier`` stays one module: ``classifier.dense`` beside
    it would be wrapped twice.
    """
    owners = {plain_name(name).rpartition(".")[0] for name in names}
    if "" in owners:
        own = sorted(name for name in names if "." not in plain_name(name))
        raise ValueError(f"LoRA cannot train {listed(own)} in full: PEFT saves modules, and they lie outside any")
    owners = {"classifier" if owner.startswith("classifier.") else owner for owner in owners}
    return sorted(owner for owner in owners if not any(_within(owner, other) for other in owners - {owner}))


def _within(name: str, other: str) -> bool:
    return name == other or name.startswith(f"{other}.")
