"""Texts with hidden tokens: other ones at every draw, as a pure function of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..randomness import generator
from .masking import MaskVocabulary, hide
from .store import Draw
from .text_store import TextStore

if TYPE_CHECKING:
    from .rows import Fault
    from .store import Batch


@dataclass(frozen=True, eq=False)
class MaskedStore:
    """One split of texts for a masked language model; a ``Store``.

    What is hidden is keyed by the draw, so a resumed run hides the same tokens with any number of loader workers; an
    evaluation hides the same ones every time.

    Args:
        texts: The split, tokenised.
        vocabulary: Of its tokenizer.
        share: Of the tokens of each text, to hide.
    """

    varies: ClassVar[bool] = True
    # What the frozen layers give could be kept for a few views, but the store of kept activations holds no tokens.
    may_be_kept: ClassVar[bool] = False
    labels: ClassVar[None] = None

    texts: TextStore
    vocabulary: MaskVocabulary
    share: float

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each text after it was cut, (examples,) int32."""
        return self.texts.lengths

    @property
    def fingerprint(self) -> str:
        """Of the data, before tokenisation."""
        return self.texts.fingerprint

    @property
    def num_cut(self) -> int:
        """How many texts are longer than the model was given."""
        return self.texts.num_cut

    @property
    def share_left_out(self) -> float:
        """Of all tokens that the texts have, those that were cut."""
        return self.texts.share_left_out

    @property
    def skipped(self) -> tuple[Fault, ...]:
        """Rows that ``bad_rows: skip`` left out."""
        return self.texts.skipped

    def column(self, name: str) -> np.ndarray:
        """A column of the source by name, (examples,).

        Raises:
            DataError: No such column; names those there are.
        """
        return self.texts.column(name)

    def where(self, index: int) -> str:
        """File and row of an example, for messages."""
        return self.texts.where(index)

    def batch(self, draws: Sequence[Draw]) -> Batch:
        """As the texts' own, with ``input_ids`` as the model sees them, and what it has to find.

        ``wanted`` (hidden,) are the places of hidden tokens in the flat batch, ``answers`` (hidden,) the tokens that
        were there, ``owners`` (hidden,) the number of the example that each is of.
        """
        import torch

        batch = self.texts.batch(draws)
        ids, places, owners, start = [], [], [], 0
        for number, draw in enumerate(draws):
            row = self.texts.ids[self.texts.offsets[draw.index] : self.texts.offsets[draw.index + 1]]
            rng = generator(draw.seed, "mask", draw.index)
            hidden = hide(np.asarray(row), rng, vocabulary=self.vocabulary, share=self.share)
            ids.append(hidden.ids)
            places.append(hidden.places + start)
            owners.append(np.full(len(hidden.places), number))
            start += len(row)
        wanted = torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *places]))
        return {
            **batch,
            "input_ids": torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *ids])),
            "wanted": wanted,
            "answers": batch["input_ids"][wanted],
            "owners": torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *owners])),
        }
