"""A word embedding that trains only the rows of tokens that occur, and is whole again when the run ends.

A row that is never read gets no gradient, so all such rows shrink alike, by weight decay alone. One more row, which no
token reads, goes through the optimizer with the others and shows by how much: it knows the schedule, frozen phases
and updates that were dropped, and a checkpoint holds it. So it is exact for optimizers that treat every number for
itself and shrink it in proportion: AdamW and SGD, with momentum too.

The rows in use are those of Williams & Aletras (arXiv 2309.08708, section 3), who leave the others as they were.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
import xxhash
from torch import Tensor, nn
from torch.nn import functional

from ..optimizers import SGD, AdamW

_CHUNK = 1 << 20  # token ids looked at in one go
_BLOCK = 1 << 12  # rows that are copied in one go
_LEAST = 1 << 16  # numbers that need not be trained; below, a step is not measurably shorter


class UsedRows(NamedTuple):
    """Which rows of a table are to be trained."""

    name: str  # of the parameter
    ids: np.ndarray  # (used,) int64, ascending
    num_rows: int  # of the whole table
    digest: str  # of the ids, and of the other rows, which no checkpoint of the run holds

    def __str__(self) -> str:
        return f"{len(self.ids):,} of {self.num_rows:,} rows"


class UsedEmbedding(nn.Embedding):
    """An embedding whose ``weight`` holds the rows in use, in the order of their ids, and the row that only decays.

    ``num_embeddings`` stays that of the whole table. An id that is not in use is an error, as one outside of the
    table is.
    """

    lookup: Tensor  # (num_embeddings,) int64: the row of an id in ``weight``, or -1
    unused: Tensor  # (ids, width): the other rows as they were, on the CPU, outside of the state dict
    measure: Tensor  # (width,): the last row as it was, on the CPU
    padding_row: int | None  # whose gradient is left out

    def forward(self, input: Tensor) -> Tensor:
        rows = self.lookup.index_select(0, input.reshape(-1)).view(input.shape)  # indexing would take -1 for the last
        return functional.embedding(rows, self.weight, self.padding_row)


def token_ids(stores: Iterable[Any], *, num_embeddings: int, also: Collection[int]) -> np.ndarray | None:
    """The ids that occur, (ids,) int64, ascending; None where a store does not tell, or has ids outside the table.

    Args:
        stores: All splits that the run reads.
        num_embeddings: Rows of the table.
        also: Ids that count as occurring: of padding and of other special tokens.
    """
    seen = np.zeros(num_embeddings, dtype=bool)
    for store in stores:
        ids = getattr(store, "ids", None)
        if ids is None or getattr(store, "varies", True):
            return None
        for start in range(0, len(ids), _CHUNK):
            chunk = np.asarray(ids[start : start + _CHUNK])
            if chunk.min() < 0 or chunk.max() >= num_embeddings:
                return None
            seen[chunk] = True
    seen[[number for number in also if 0 <= number < num_embeddings]] = True
    return np.flatnonzero(seen)


def word_embedding(model: nn.Module) -> tuple[str, nn.Embedding] | None:
    """The embedding that takes ``input_ids``, with its parameter's name; None where a model has none."""
    base: Any = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
    try:
        found = base.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        return None
    if not isinstance(found, nn.Embedding):
        return None
    return next((f"{name}.weight", module) for name, module in model.named_modules() if module is found)


def why_whole(model: nn.Module, ids: np.ndarray | None, *, trained: Collection[str], optimizer: Any) -> str:
    """Why all rows are to be trained; empty where those in use are enough, and fewer.

    Args:
        model: The classifier, adapted or not.
        ids: That occur in the run (see ``token_ids``).
        trained: Names of the parameters that train in some phase.
        optimizer: The run's, as configuration.
    """
    found = word_embedding(model)
    if found is None:
        return "no word embedding"
    name, table = found
    if name not in trained:
        return "the word embedding never trains"
    if ids is None:
        return "the data does not tell which tokens occur"
    if type(optimizer) not in (AdamW, SGD):
        return f"{type(optimizer).__name__} may let rows depend on one another"
    if type(table) is not nn.Embedding or table.max_norm is not None or table.scale_grad_by_freq or table.sparse:
        return "not a plain embedding"
    if sum(parameter is table.weight for _, parameter in model.named_parameters(remove_duplicate=False)) > 1:
        return "the word embedding is tied to other weights"
    if table._forward_hooks or table._forward_pre_hooks or table._backward_hooks or table.weight._backward_hooks:
        return "a hook reads the word embedding"
    if (table.num_embeddings - len(ids)) * table.embedding_dim < _LEAST:
        return f"{len(ids):,} of {table.num_embeddings:,} rows occur"
    return ""


def used_rows(model: nn.Module, ids: np.ndarray) -> UsedRows:
    """The rows of these ids and of padding, where ``why_whole`` has nothing against it."""
    found = word_embedding(model)
    assert found is not None
    name, table = found
    if table.padding_idx is not None:
        ids = np.union1d(ids, table.padding_idx)
    others = np.setdiff1d(np.arange(table.num_embeddings), ids)
    digest = xxhash.xxh3_128(np.ascontiguousarray(ids, dtype=np.int64).data)
    for rows in torch.from_numpy(others).to(table.weight.device).split(_BLOCK):
        values = table.weight.detach().index_select(0, rows).cpu().reshape(-1)
        digest.update(values.view(torch.uint8).numpy().data)
    return UsedRows(name, ids, table.num_embeddings, digest.hexdigest())


def keep_used_rows(model: nn.Module, used: UsedRows) -> None:
    """Take the rows that no token reads out of training, until ``restore_rows``.

    Names and the state dict's keys stay; the shape of one parameter changes, so the optimizer is made after this.
    """
    found = word_embedding(model)
    assert found is not None and type(found[1]) is nn.Embedding
    table: Any = found[1]
    whole = table.weight.detach()
    is_used = torch.zeros(len(whole), dtype=torch.bool)
    is_used[torch.from_numpy(used.ids)] = True
    lookup = torch.where(is_used, is_used.cumsum(0) - 1, -1).to(whole.device)
    # from 1 to 2, so that a decay too small for the format rounds as it does in rows, not the same way everywhere
    measure = torch.logspace(0, 1, table.embedding_dim + 1, base=2, dtype=torch.float64)[:-1].to(whole)
    kept = torch.cat([whole.index_select(0, _rows(lookup >= 0)), measure[None]])
    unused = whole.index_select(0, _rows(lookup < 0)).cpu()
    table.__class__ = UsedEmbedding
    table.weight = nn.Parameter(kept, requires_grad=table.weight.requires_grad)
    table.register_buffer("lookup", lookup, persistent=False)
    table.unused, table.measure = unused, measure.cpu()
    table.padding_row = None if table.padding_idx is None else int(lookup[table.padding_idx])


def restore_rows(model: nn.Module) -> None:
    """Undo ``keep_used_rows``: rows in use as they are now, the others decayed as training them would have done."""
    found: list[Any] = [module for module in model.modules() if isinstance(module, UsedEmbedding)]
    for table in found:
        with torch.no_grad():
            weight, lookup = table.weight, table.lookup
            decay = (weight[-1].double().cpu() / table.measure.double()).mean()
            whole = weight.new_empty(table.num_embeddings, table.embedding_dim)
            whole.index_copy_(0, _rows(lookup >= 0), weight[:-1])
            for rows, values in zip(_rows(lookup < 0).split(_BLOCK), table.unused.split(_BLOCK), strict=True):
                whole.index_copy_(0, rows, (values.double() * decay).to(whole))
        for name in ("lookup", "unused", "measure", "padding_row"):
            delattr(table, name)
        table.__class__ = nn.Embedding
        table.weight = nn.Parameter(whole, requires_grad=weight.requires_grad)


def _rows(chosen: Tensor) -> Tensor:
    return chosen.nonzero()[:, 0]
