"""Packing of sentences into one row of tokens without padding and duplicates."""

from __future__ import annotations

from itertools import accumulate

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence


class PackedSentences(nn.Module):
    """Index of the tokens of S sentences in a row of T tokens that holds U different sentences without padding.

    The row holds the U first tokens, [CLS], then all others, sentence by sentence. Everything that treats tokens
    one by one (linear layers, norms, GELU: 99% of a BERT's work on short sentences) runs on the row; for attention
    it is unpacked.

    S sentences that stand for classes and concepts are mapped to and from the U different ones. That is exact as
    long as equal sentences are treated alike, as by BiFusion, which knows no order of its tokens; under dropout, of
    BERT or BiFusion, the draws of the first one speak for all.

    Args:
        token_ids: S x L
        mask: True on tokens, S x L; no sentence is empty, and padding follows the tokens.

    Attributes:
        count: U.
        sentences: the tokens of the different ones.
        token_ids: of the row.  # T
        positions: of the row's tokens in their sentences.  # T
        mask: of the different sentences.  # U x L
        bias: what attention adds to its logits, 0 on tokens and minus infinity on padding.  # U x 1 x 1 x L
    """

    token_ids: Tensor
    positions: Tensor
    mask: Tensor
    bias: Tensor
    row_of: Tensor  # U*L: where the row holds each token; 0 for padding
    place_of: Tensor  # T: where the row's tokens stand among the U*L
    different: Tensor  # S: which of the U a sentence is
    example: Tensor  # U: a sentence among the S that is it

    def __init__(self, token_ids: Tensor, mask: Tensor) -> None:
        super().__init__()
        lengths = mask.sum(dim=1).tolist()
        sentences = [tuple(ids[:length]) for ids, length in zip(token_ids.tolist(), lengths, strict=True)]
        numbers: dict[tuple[int, ...], int] = {}
        different = [numbers.setdefault(sentence, len(numbers)) for sentence in sentences]
        example = torch.tensor([different.index(number) for number in range(len(numbers))])
        self.count = len(numbers)
        self.sentences = list(numbers)
        mask = mask[example].bool()
        length = mask.shape[1]
        others = mask.clone()
        others[:, 0] = False
        place_of = torch.cat([torch.arange(self.count) * length, others.flatten().nonzero().squeeze(1)])
        row_of = torch.zeros(mask.numel(), dtype=torch.long)
        row_of[place_of] = torch.arange(len(place_of))
        buffers = {
            "token_ids": token_ids[example].flatten()[place_of],
            "positions": place_of % length,
            "mask": mask,
            "bias": torch.zeros(mask.shape).masked_fill(~mask, -torch.inf)[:, None, None, :],
            "row_of": row_of,
            "place_of": place_of,
            "different": torch.tensor(different),
            "example": example,
        }
        for name, buffer in buffers.items():
            self.register_buffer(name, buffer, persistent=False)

    @classmethod
    def joined(cls, one: PackedSentences, other: PackedSentences) -> PackedSentences:
        """Pack the different sentences of two rows into one, on the CPU."""
        sentences = [torch.tensor(tokens) for tokens in (*one.sentences, *other.sentences)]
        token_ids = pad_sequence(sentences, batch_first=True)
        lengths = torch.tensor([len(tokens) for tokens in sentences])
        return cls(token_ids, torch.arange(token_ids.shape[1]) < lengths[:, None])

    def places_in(self, joined: PackedSentences) -> Tensor:
        """Return where a row that has all of these sentences holds the tokens of this row, on the CPU.  # T"""
        numbers = {tokens: number for number, tokens in enumerate(joined.sentences)}
        begin = list(accumulate((len(tokens) - 1 for tokens in joined.sentences), initial=joined.count))
        firsts = [numbers[tokens] for tokens in self.sentences]
        others = [begin[numbers[tokens]] + i for tokens in self.sentences for i in range(len(tokens) - 1)]
        return torch.tensor([*firsts, *others])

    def attention_bias(self, batch: int, dtype: torch.dtype) -> Tensor:
        """Return ``bias`` for the sentences of a batch of images, B*U x 1 x 1 x L, in the precision of the queries."""
        return self.bias.to(dtype).repeat(batch, 1, 1, 1)

    def unpack(self, row: Tensor) -> Tensor:
        """Unpack a row (B x T x C) to padded sentences (B*U x L x C); the padding's content is arbitrary."""
        return rearrange(row.index_select(1, self.row_of), "b (u l) c -> (b u) l c", u=self.count)

    def pack(self, sentences: Tensor) -> Tensor:
        """Pack padded sentences (B*U x L x C) into a row (B x T x C)."""
        return rearrange(sentences, "(b u) l c -> b (u l) c", u=self.count).index_select(1, self.place_of)

    def cls(self, row: Tensor) -> Tensor:
        """Return the [CLS] states of all S sentences, equal ones repeated: B x S x C."""
        return row.index_select(1, self.different)

    def replace_cls(self, row: Tensor, states: Tensor) -> Tensor:
        """Replace the [CLS] states of a row by B x S x C; of equal sentences the first one's is taken."""
        return torch.cat([states.index_select(1, self.example).to(row.dtype), row[:, self.count :]], dim=1)
