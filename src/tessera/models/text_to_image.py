"""The prior: text tokens and image codes in one sequence, two heads on their own positions. It does not know pixels."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from tessera.config import TextToImageConfig
from tessera.nn.cache import Index, Past
from tessera.nn.geometry import Layout
from tessera.nn.loss import IGNORE, Head
from tessera.nn.stack import NORMS, Transformer

BOS = 0
"""The text id before every caption."""


class Loss(NamedTuple):
    """total = (text + w * image) / (1 + w); each a mean over its own positions, in nats."""

    total: Tensor
    text: Tensor
    image: Tensor


class MaxNorm(nn.Module):
    """Divide by the largest channel, without a gradient through it (DALLE-pytorch's `stable`)."""

    def forward(self, x: Tensor) -> Tensor:
        return x / x.amax(-1, keepdim=True).detach()


class TextToImage(nn.Module):
    """An autoregressive prior over `<bos> text codes` (Ramesh et al. 2021).

    The text vocabulary is the tokenizer's, then one padding id for each of the `text_len` places. Text positions meet
    only the text head and image positions only the image head: the joint logits of the original, 70 % of which can
    never matter, do not exist here.
    """

    text_position: Tensor
    row_position: Tensor
    col_position: Tensor

    splits = True
    """Whether a batch may be cut into micro-batches without changing the loss."""

    @staticmethod
    def inputs(config: TextToImageConfig, rows: int) -> tuple[Tensor, Tensor]:
        """What training calls it with, all zero."""
        tokens = torch.zeros(rows, config.text_len, dtype=torch.long)
        return tokens, torch.zeros(rows, config.grid * config.grid, dtype=torch.long)

    def __init__(self, config: TextToImageConfig):
        super().__init__()
        assert min(config.text_vocab, config.image_vocab, config.grid) > 0, "resolve the config first"
        c, t = config, config.transformer
        self.config = config
        self.layout = Layout(text=c.text_len + 1, grid=c.grid)
        vocab = c.text_vocab + c.text_len
        self.transformer = Transformer(t, self.layout)
        self.text_embedding = nn.Embedding(vocab, t.dim)
        self.image_embedding = nn.Embedding(c.image_vocab, t.dim)
        learned = t.positions == "axial"
        for name, rows in (("text", (self.layout.text,)), ("row", (c.grid, 1)), ("col", (1, c.grid))):
            if learned:
                self.register_parameter(f"{name}_position", nn.Parameter(torch.randn(*rows, t.dim)))
            else:
                self.register_buffer(f"{name}_position", torch.zeros(*rows, 1), persistent=False)
        self.embedding_slope = 0.1 if t.stable else 1.0
        self.limit = MaxNorm() if t.stable else nn.Identity()
        self.read_as: nn.Module = nn.Identity()  # of codes, in training; an objective may put noise here
        self.norm = NORMS[t.norm](t.dim)
        self.text_head = Head(t.dim, vocab, bias=t.bias)
        self.image_head = Head(t.dim, c.image_vocab, bias=t.bias)
        if t.zero_init:
            for table in (self.text_embedding.weight, self.image_embedding.weight):
                nn.init.normal_(table, std=0.5)
            for position in (self.text_position, self.row_position, self.col_position) if learned else ():
                nn.init.normal_(position, std=0.1)
            for head in (self.text_head, self.image_head):
                nn.init.normal_(head.weight, std=0.02)
        if c.tied:
            self.text_embedding.weight = self.text_head.weight
            self.image_embedding.weight = self.image_head.weight

    def forward(self, tokens: Int[Tensor, "B T"], codes: Int[Tensor, "B N"], *order: Int[Tensor, "B N"]) -> Loss:
        """The training loss; targets of the text head are the tokens, those of the image head the codes. A
        model of more than one order is told in which to read them."""
        hidden = self.hidden(tokens, self.read_as(codes), *order)
        text = self.text_head(hidden[:, : tokens.shape[1]], self._text_targets(tokens))
        image = self.image_head(hidden[:, tokens.shape[1] :], codes)
        weight = self.config.image_weight
        return Loss((text + weight * image) / (1 + weight), text, image)

    def _text_targets(self, tokens: Tensor) -> Tensor:
        """The first padding id ends the caption and is learned; those after it only where DALL-E 1 is followed."""
        if self.config.learn_padding:
            return tokens
        padding = tokens >= self.config.text_vocab
        return tokens.masked_fill(padding & (padding.cumsum(1) > 1), IGNORE)

    def hidden(self, tokens: Int[Tensor, "B T"], codes: Int[Tensor, "B n"]) -> Float[Tensor, "B L D"]:
        """Final states at <bos>, every token, and every code but a last one that nothing follows."""
        codes = codes[:, : self.layout.codes - 1]
        return self.finish(self.transformer(self.embed(tokens, codes)))

    def embed(
        self, tokens: Int[Tensor, "B T"], codes: Int[Tensor, "B n"], order: Index = slice(None)
    ) -> Float[Tensor, "B L D"]:
        """Of <bos>, tokens and codes; these stand in reading order, or where `order` says."""
        text = self.text_embedding(F.pad(tokens, (1, 0), value=BOS))
        image = self.image_embedding(codes)
        position = self._code_position(image)[order][..., : codes.shape[1], :]
        text, image = text + self.text_position.to(text.dtype), image + position
        return self._damp(torch.cat((text, image), 1))

    def _code_position(self, like: Tensor) -> Float[Tensor, "N d"]:
        """Learned positions, d = D, or zeros, d = 1."""
        return (self.row_position + self.col_position).flatten(0, 1).to(like.dtype)

    def _damp(self, x: Tensor) -> Tensor:
        # CogView's embedding-gradient shrink: the value is x, the slope 0.1 when `stable`.
        return x if self.embedding_slope == 1.0 else x * self.embedding_slope + x.detach() * (1 - self.embedding_slope)

    def finish(self, x: Tensor) -> Tensor:
        return self.norm(self.limit(x))

    # Drawing: the text at once, then code by code.

    def past(self, batch: int, dtype: torch.dtype = torch.float32) -> Past:
        return self.transformer.past(batch, self.text_embedding.weight.device, dtype)

    def prefill(self, tokens: Int[Tensor, "B T"], codes: Int[Tensor, "B n"], past: Past) -> Float[Tensor, "B K"]:
        """Read the text and the codes that are given into an empty past; logits of the code that follows."""
        x = self.embed(tokens, codes)
        past.advance(x.shape[1])
        return self.image_head.logits(self.finish(self.transformer(x, past)[:, -1]))

    def step(self, code: Int[Tensor, " B"], past: Past) -> Float[Tensor, "B K"]:
        """Read one code; logits of the code that follows."""
        past.advance(1)
        return self.decode(code[:, None], past)[:, 0]

    def decode(self, codes: Int[Tensor, "B n"], past: Past) -> Float[Tensor, "B n K"]:
        """Logits of the codes that follow each of these, which stand where `past` stands already, all rows of the batch
        together or each on its own: tensors alone change, so it can be compiled."""
        x = self.image_embedding(codes)
        x = x + F.embedding(past.places - self.layout.text, self._code_position(x))
        return self.image_head.logits(self.finish(self.transformer(x, past)))

    # Whole logits, for reading, testing and parity; training never makes them.

    def image_logits(self, tokens: Tensor, codes: Int[Tensor, "B n"], *order: Tensor) -> Float[Tensor, "B m K"]:
        """Position i predicts code i; m is n + 1 until the grid is full."""
        return self.image_head.logits(self.hidden(tokens, codes, *order)[:, tokens.shape[1] :])

    def null_caption(self, tokens: Int[Tensor, "B T"]) -> Int[Tensor, "B T"]:
        """The caption of a picture without a caption: all padding. The argument is not changed."""
        return torch.arange(tokens.shape[1], device=tokens.device).add(self.config.text_vocab).expand_as(tokens)

    def drop_captions(self, tokens: Int[Tensor, "B T"], rows: Bool[Tensor, " B"]) -> Int[Tensor, "B T"]:
        """`tokens` with the captions of some rows taken away, so that guidance has something to push from."""
        return torch.where(rows[:, None], self.null_caption(tokens), tokens)
