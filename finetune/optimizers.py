"""Optimizers as frozen configuration, and which parameters weight decay skips."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

from annotated_types import Ge, Gt, Lt

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from .layers import LayerGroup

_STRICT = {"extra": "forbid"}
_Rate = Annotated[float, Gt(0), Lt(float("inf"))]
_Share = Annotated[float, Ge(0), Lt(1)]

# Tokens, position tables and scales that have two or more dimensions and are still not weights of a map.
# ``position_embeddings`` with nothing after it is the raw parameter of vision models; BERT's own ends in ``.weight``.
_NEVER_DECAYED = re.compile(
    r"(^|\.)(cls_token|dist_token|distillation_token|mask_token|reg_token|register_tokens|storage_tokens"
    r"|pos_embed|position_embeddings?|absolute_position_embeddings|relative_position_bias_table|rel_pos\w*"
    r"|logit_scale|layer_scale\w*|gamma(_\d+)?|lambda\d?(_\d+)?)$"
    r"|(^|\.)(rel_embeddings|relative_attention_bias|layer_scale\w*|ls\d)\."
)


class OptimizerConfig(Protocol):
    """An optimizer to build; ``lr`` is the base LR of every group but the head, whose own is ``head_lr``."""

    @property
    def lr(self) -> float: ...

    @property
    def head_lr(self) -> float | None: ...

    @property
    def weight_decay(self) -> float: ...

    def build(self, param_groups: Sequence[Mapping[str, Any]], *, fused: str) -> torch.optim.Optimizer:
        """The torch optimizer over these groups; ``fused`` is ``"yes"`` where a fused kernel may be used."""


@dataclass(frozen=True, kw_only=True)
class AdamW:
    """Adam with decoupled weight decay and bias correction (Loshchilov & Hutter 2019; Mosbach et al. 2021, section 5).

    Args:
        lr: Peak learning rate; 2e-5 is the middle of Devlin et al. 2019, appendix A.3.
        head_lr: Peak learning rate of the head and all new weights; absent: ``lr``.
        weight_decay: Of matrices; biases, norms, tokens, position tables of vision models and scales are skipped.
        betas: Decay of the first and second moment.
        eps: Added to the root of the second moment.
    """

    name: Literal["adamw"] = "adamw"
    lr: _Rate = 2e-5
    head_lr: _Rate | None = None
    weight_decay: Annotated[float, Ge(0), Lt(float("inf"))] = 0.01
    betas: tuple[_Share, _Share] = (0.9, 0.999)
    eps: _Rate = 1e-8

    __pydantic_config__ = _STRICT

    def build(self, param_groups: Sequence[Mapping[str, Any]], *, fused: str) -> torch.optim.Optimizer:
        import torch

        from .fused import FusedAdamW

        groups = [dict(group) for group in param_groups]
        if fused == "yes":
            return FusedAdamW(groups, lr=self.lr, betas=self.betas, eps=self.eps, fused=True)
        return torch.optim.AdamW(groups, lr=self.lr, betas=self.betas, eps=self.eps)


@dataclass(frozen=True, kw_only=True)
class SGD:
    """Stochastic gradient descent with momentum (the probe and fine-tuning grids of Kumar et al. 2022)."""

    name: Literal["sgd"] = "sgd"
    lr: _Rate = 1e-2
    head_lr: _Rate | None = None
    weight_decay: Annotated[float, Ge(0), Lt(float("inf"))] = 0.0
    momentum: _Share = 0.9

    __pydantic_config__ = _STRICT

    def build(self, param_groups: Sequence[Mapping[str, Any]], *, fused: str) -> torch.optim.Optimizer:
        import torch

        from .fused import FusedSGD

        groups = [dict(group) for group in param_groups]
        if fused == "yes":
            return FusedSGD(groups, lr=self.lr, momentum=self.momentum, fused=True)
        return torch.optim.SGD(groups, lr=self.lr, momentum=self.momentum)


def base_lr(optimizer: OptimizerConfig, group: str) -> float:
    """The LR that the scales of a strategy multiply: ``head_lr`` for the head where it is given, else ``lr``."""
    return optimizer.head_lr if group == "head" and optimizer.head_lr is not None else optimizer.lr


def is_decayed(name: str, parameter: Tensor) -> bool:
    """Whether weight decay applies: not to biases, norms and other 1-D tensors, tokens, position tables or scales."""
    return parameter.ndim > 1 and not name.endswith("bias") and not _NEVER_DECAYED.search(name)


def param_groups(
    groups: Sequence[LayerGroup], parameters: Mapping[str, Tensor], optimizer: OptimizerConfig
) -> list[dict[str, Any]]:
    """Every group of the plan as torch parameter groups, split by weight decay.

    All exist from the start, so nothing is ever added or rebuilt; a frozen group has no gradient and
    therefore no state. Each dict also holds ``group`` (the plan's name) and ``names``.
    """
    found = []
    for group in groups:
        decays = {name: optimizer.weight_decay > 0 and is_decayed(name, parameters[name]) for name in group.parameters}
        decayed = [name for name, does in decays.items() if does]
        plain = [name for name, does in decays.items() if not does]
        for names, decay in ((decayed, optimizer.weight_decay), (plain, 0.0)):
            if names:
                params = [parameters[name] for name in names]
                found.append({"params": params, "names": names, "group": group.name, "weight_decay": decay, "lr": 0.0})
    return found
