"""How sure a model was of the codes that were drawn: measured, or not. It does not know the model."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Unmeasured:
    """Nobody asks how sure the model was, so nothing is computed: every value is nan."""

    def __init__(self, codes: Int[Tensor, "B N"]):
        self.log_probability = self.entropy = torch.full((), torch.nan, device=codes.device).expand(codes.shape)

    def note(self, logits: Float[Tensor, "B n K"], codes: Int[Tensor, "B N"], first: int, known: int) -> None: ...


class Certainty:
    """How sure the model was of each code, before temperature and filters. Given codes keep 0.

    logits [B, n, K] -> log-softmax -> at the code that was drawn: log-probability
                                    -> sum of -p log p:            entropy
    """

    def __init__(self, codes: Int[Tensor, "B N"]):
        self.log_probability, self.entropy = torch.zeros(2, *codes.shape, device=codes.device)

    def note(self, logits: Float[Tensor, "B n K"], codes: Int[Tensor, "B N"], first: int, known: int) -> None:
        """Of the codes behind the `known` ones. They were drawn from these logits, which begin at place `first`."""
        predicted, new = logits[:, known - first :].float().log_softmax(-1), slice(known, first + logits.shape[1])
        self.log_probability[:, new] = predicted.gather(-1, codes[:, new, None])[..., 0]
        self.entropy[:, new] = -(predicted.exp() * predicted).sum(-1)


Measure = type[Unmeasured] | type[Certainty]
"""What a decoder measures: chosen when it is built."""
