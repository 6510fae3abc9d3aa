"""The prior of any order: it reads codes in any order, and predicts any set of places from them. It does not know
pixels.

Two streams (after ARPG, Li et al. 2025). The content stream is the raster prior with its codes in another order, less
its last layers. These answer queries: one query for each place that is asked for, which looks at what the content
stream made of the text and of the codes before it, and at no other query.

    order    2 0 3 1                                    the places, as they are read
    content  <bos> text | c2 c0 c3                      causal; each code turned by its own place
    queries               ?2 ?0 ?3 ?1                   the i-th sees the text and i codes

So the sum of what queries say of their codes is the log-likelihood of the picture in this order, what was read is kept
in a cache, and many places can be asked for at once.
"""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from tessera.config import AnyOrderConfig, TransformerConfig
from tessera.models.text_to_image import TextToImage
from tessera.nn.attention import Attention, Visibility
from tessera.nn.cache import Index, Nothing, Past, Slot, Together
from tessera.nn.rotary import Turn
from tessera.nn.stack import NORMS, Transformer, reversible_kept


class Asked(Nothing):
    """Queries at `places` [M] or [B, M], of a whole sequence. The query at place i of them sees the `rows` [M] of the
    content up to its own."""

    def __init__(self, places: Tensor, rows: Tensor, content: Float[Tensor, "B L D"], at: Index):
        super().__init__(0, places)
        self.rows, self.content, self.at = rows, content, at

    def look(self, attention: CrossAttention, q: Float[Tensor, "B H M E"]) -> Float[Tensor, "B H M E"]:
        return attention.sight.together(q, *attention.keys_values(self.content, self.at), self.rows)


class AskedOfPast(Nothing):
    """Queries at `places`, of what is kept in a past: one memory for each of the `slots`. `stand` has a row for each
    query, up to which it sees."""

    def __init__(self, places: Tensor, stand: Together, slots: list[Slot], slot: int = 0):
        super().__init__(0, places)
        self.stand, self.slots, self.slot = stand, slots, slot

    def __getitem__(self, slot: int) -> AskedOfPast:
        assert isinstance(self.places, Tensor)
        return AskedOfPast(self.places, self.stand, self.slots, slot)

    def look(self, attention: CrossAttention, q: Float[Tensor, "B H M E"]) -> Float[Tensor, "B H M E"]:
        own = self.slots[self.slot]
        return self.stand.attend(attention.sight, q, own.keys, own.values)


class CrossAttention(Attention):
    """Queries look at keys and values of the content stream's end. They do not see each other."""

    def __init__(self, config: TransformerConfig, sight: Visibility, turn: Turn, turn_values: Turn):
        super().__init__(config, sight, turn, turn_values)
        inner = config.heads * config.head_dim
        del self.qkv
        self.q = nn.Linear(config.dim, inner, bias=False)
        self.kv = nn.Linear(config.dim, 2 * inner, bias=False)

    def keys_values(self, content: Float[Tensor, "B L D"], at: Index) -> tuple[Tensor, Tensor]:
        """2 x [B, H, L, E], turned by the places that the content stands at."""
        k, v = self.kv(content).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.turn(self.norm_k(k), self.turn.at(at)), self.turn_values(v, self.turn_values.at(at))

    def forward(self, x: Float[Tensor, "B M D"], memory: Asked | AskedOfPast) -> Float[Tensor, "B M D"]:
        q = self.norm_q(self.q(x).unflatten(-1, (self.heads, -1)).transpose(1, 2))  # [B, H, M, E]
        y = memory.look(self, self.turn(q, self.turn.at(memory.places)))
        return self.dropout(self.out(y.transpose(1, 2).flatten(2)))


class AnyOrder(TextToImage):
    """A prior of any order. Without an order it is a raster prior, drawn from in the same ways."""

    config: AnyOrderConfig

    @staticmethod
    def inputs(config: AnyOrderConfig, rows: int) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]
        """What training calls it with: zeros, and reading order."""
        tokens, codes = TextToImage.inputs(config, rows)
        return tokens, codes, torch.arange(codes.shape[1]).expand(rows, -1)

    def __init__(self, config: AnyOrderConfig):
        t = config.transformer
        content = dataclasses.replace(t, depth=t.depth - config.query_depth)
        super().__init__(dataclasses.replace(config, transformer=content))
        self.config = config
        answers = dataclasses.replace(t, depth=config.query_depth)
        self.queries = Transformer(answers, self.layout, CrossAttention)
        if t.reversible:  # the keys have a gradient too, which a branch that is computed again would not give them
            self.queries.wiring = reversible_kept
        self.query = nn.Embedding(self.layout.codes, t.dim)  # of every place
        self.query_norm = NORMS[t.norm](t.dim)
        if t.zero_init:
            nn.init.normal_(self.query.weight, std=0.5)

    def hidden(
        self, tokens: Int[Tensor, "B T"], codes: Int[Tensor, "B n"], order: Int[Tensor, "B N"] | None = None
    ) -> Float[Tensor, "B L D"]:
        """Final states at <bos> and every token, then of every place in reading order: predicted from the codes before
        it in `order`, which lists the places as they are read. Without an order, of the n + 1 first places."""
        text, total = self.layout.text, self.layout.codes
        if order is not None:
            codes = codes.gather(1, order)
        codes = codes[:, : total - 1]
        count = codes.shape[1]
        reading = torch.arange(count + 1, device=codes.device).expand(len(codes), -1)
        asked = reading if order is None else order
        at = self.places(asked[:, :count])
        x = self.embed(tokens, codes, asked[:, :count])
        content = self.finish(self.transformer(x, Nothing(x.shape[1], at)))
        rows = torch.arange(text - 1, text + count, device=codes.device)
        states = self.answer(asked, Asked(text + asked, rows, content, at))
        if order is not None:
            states = states.gather(1, order.argsort(1)[..., None].expand_as(states))
        return torch.cat((content[:, : tokens.shape[1]], states), 1)

    def places(self, order: Int[Tensor, "b n"]) -> Int[Tensor, "b L"]:
        """Of <bos>, tokens and codes in the layout."""
        text = torch.arange(self.layout.text, device=order.device).expand(len(order), -1)
        return torch.cat((text, self.layout.text + order), 1)

    def answer(self, asked: Int[Tensor, "b M"], memory: Asked | AskedOfPast) -> Float[Tensor, "B M D"]:
        """Final states of queries at places of the grid."""
        return self.query_norm(self.limit(self.queries(self._damp(self.query(asked)), memory)))

    # Drawing: what is known is read, then any place is asked for.

    def past(self, batch: int, dtype: torch.dtype = torch.float32) -> Past:
        """Of the content stream, then keys and values of it for the queries."""
        device = self.query.weight.device
        own, answers = (stack.past(batch, device, dtype) for stack in (self.transformer, self.queries))
        return Past([*own.slots, *answers.slots], self.layout.length, device)

    def prefill(self, tokens: Int[Tensor, "B T"], codes: Int[Tensor, "B n"], past: Past) -> Float[Tensor, "B K"]:
        """Read the text and the first codes into an empty past; logits of the code that follows."""
        count = codes.shape[1]
        first = torch.arange(count, device=codes.device).expand(len(codes), -1)
        self.begin(tokens, codes, first, past)
        return self.ask(torch.full_like(tokens[:, :1], count), past)[:, 0]

    def begin(self, tokens: Int[Tensor, "B T"], codes: Int[Tensor, "B n"], at: Int[Tensor, "B n"], past: Past) -> None:
        """Read the text and the codes that are given, which stand at places of the grid, into an empty past."""
        x = self.embed(tokens, codes, at)
        past.advance(x.shape[1], self.places(at))
        self._keep(x, past)

    def read(self, codes: Int[Tensor, "B n"], at: Int[Tensor, "B n"], past: Past) -> None:
        """Read codes at places of the grid."""
        past.advance(codes.shape[1], self.layout.text + at)
        self._keep(self._placed(codes, past), past)

    def ask(self, at: Int[Tensor, "B M"], past: Past) -> Float[Tensor, "B M K"]:
        """Logits of any places of the grid, each from all that was read."""
        rows = past.every[past.seen - 1 : past.seen].expand(at.shape[1])
        limit = len(past.every) if past.fixed else past.seen
        return self._asked(at, Together(rows, rows, limit), past)

    def decode(self, codes: Int[Tensor, "B n"], past: Past) -> Float[Tensor, "B n K"]:
        """Logits of the codes that follow each of these in reading order, as a raster prior's."""
        self._keep(self._placed(codes, past), past)
        stand = past.slots[0].stand
        follows = (past.places - self.layout.text + 1).clamp(max=self.layout.codes - 1)
        return self._asked(follows.expand(len(codes), -1) if follows.ndim == 1 else follows, stand, past)

    def _placed(self, codes: Tensor, past: Past) -> Float[Tensor, "B n D"]:
        x = self.image_embedding(codes)
        return x + F.embedding(past.places - self.layout.text, self._code_position(x))

    def _keep(self, x: Tensor, past: Past) -> None:
        """Read embeddings, and keep the keys and values that queries will look at."""
        content = self.finish(self.transformer(x, past))
        for (attend, _), slot in zip(self.queries.pairs, self._answers(past)[::2], strict=True):  # type: ignore[misc]
            keys, values = attend.fn.keys_values(content, past.places)
            slot.stand.store(slot.keys, keys, slot.stand.rows, 2)
            slot.stand.store(slot.values, values, slot.stand.rows, 2)

    def _answers(self, past: Past) -> list[Slot]:
        return list(past.slots[2 * self.transformer.config.depth :])

    def _asked(self, at: Tensor, stand: Together, past: Past) -> Float[Tensor, "B M K"]:
        memory = AskedOfPast(self.layout.text + at, stand, self._answers(past))
        return self.image_head.logits(self.answer(at, memory))
