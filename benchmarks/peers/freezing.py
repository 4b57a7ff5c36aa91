"""What a row's stages train, as a user of another tool would set it: ``requires_grad`` by name."""

from __future__ import annotations

from typing import Any

from ..definition import Work
from ..ours import trained


def train_only(network: Any, blocks: int) -> None:
    """Let the head and ``blocks`` blocks from the top train; the parts are those that ours has."""
    from finetune.layers import layer_groups

    groups = layer_groups(network)
    chosen = set(trained([group.name for group in groups], blocks))
    names = {name for group in groups if group.name in chosen for name in group.parameters}
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name in names)


def stage_of(work: Work, epoch: int) -> int:
    """Blocks that train in an epoch."""
    return work.stages[min(epoch // work.epochs, len(work.stages) - 1)]


def adapted(network: Any, work: Work) -> Any:
    """With PEFT's adapters where the row has some: the same configuration as ours, all linear layers of the trunk."""
    if not work.lora_rank:
        return network
    from ..ours import strategy

    return strategy(work).adapt(network, ())
