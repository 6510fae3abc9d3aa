"""A prior whose output matrix is joint over text and codes, as DALLE-pytorch has it. It knows no drawing.

The joint matrix is the parameter; the house's two heads are lent slices of it while they compute, so that the states of
the original's optimiser fit by position.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tessera.compat.dalle_pytorch.face import Face, Seat, widen_scales
from tessera.imports.dalle_pytorch.names import centred, dalle_names
from tessera.imports.dalle_pytorch.writing import rotary_table
from tessera.models.text_to_image import TextToImage
from tessera.nn.attention import Attention, Visibility
from tessera.nn.rotary import Rotary

Slice = tuple[nn.Module, str, nn.Module, str, slice | int]
"""A module, its attribute, and what that is a part of: a module, its attribute, and which part. Plain values, so that a
model can be copied and saved whole."""


class JointPrior(Face):
    """What a DALLE keeps: the prior, its joint matrix, and its image tokenizer `vae`, which is a face too."""

    vae: Face
    num_text_tokens: int

    def seat(self, prior: TextToImage, total_tokens: int) -> None:
        """Give parameters the original's shape; the prior computes with slices of them."""
        self.prior, c = prior, prior.config
        widen_scales(prior)
        joint = nn.Linear(c.transformer.dim, total_tokens)
        with torch.no_grad():
            joint.weight.copy_(torch.cat((prior.text_head.weight, prior.image_head.weight)))
            joint.bias.copy_(torch.cat((prior.text_head.bias, prior.image_head.bias)))  # type: ignore[list-item]
        self.joint = joint
        learned = c.transformer.positions == "axial"
        if learned:
            self.rows, self.cols = (nn.Parameter(t.detach()[None]) for t in (prior.row_position, prior.col_position))
        texts = self.num_text_tokens
        heads = ((prior.text_head, slice(0, texts)), (prior.image_head, slice(texts, None)))
        self._slices: list[Slice] = [
            (head, kind, self.joint, kind, part) for head, part in heads for kind in ("weight", "bias")
        ]
        if learned:
            self._slices += [(prior, "row_position", self, "rows", 0), (prior, "col_position", self, "cols", 0)]
        if c.tied:
            tables = ((prior.text_embedding, slice(0, texts)), (prior.image_embedding, slice(texts, None)))
            self._slices += [(table, "weight", self.joint, "weight", part) for table, part in tables]
        for module, name, *_ in self._slices:
            delattr(module, name)
            setattr(module, name, None)

    @contextmanager
    def _whole(self) -> Iterator[TextToImage]:
        """The prior with its slices in place."""
        for module, name, source, attribute, part in self._slices:
            setattr(module, name, getattr(source, attribute)[part])
        try:
            yield self.prior
        finally:
            for module, name, *_ in self._slices:
                setattr(module, name, None)

    # What scripts reach for inside the original.

    @property
    def to_logits(self) -> nn.Module:
        """The last norm and the joint matrix."""
        return nn.Sequential(self.prior.norm, self.joint)

    @property
    def text_emb(self) -> nn.Module:
        return self.prior.text_embedding

    @property
    def image_emb(self) -> nn.Module:
        return self.prior.image_embedding

    @property
    def transformer(self) -> nn.Module:
        return self.prior.transformer

    def seats(self) -> list[Seat]:
        own: dict[str, Tensor] = dict(self.prior.named_parameters(remove_duplicate=False))
        own |= {"to_logits.1.weight": self.joint.weight, "to_logits.1.bias": self.joint.bias}
        if self.prior.config.transformer.positions == "axial":
            own |= {"row_position": self.rows, "col_position": self.cols}
        table = dalle_names(self.prior.config)
        vae = [(f"vae.{name}", value, shape) for name, value, shape in self.vae.seats()]
        return vae + [(theirs, own[ours], shape) for theirs, ours, shape in table]

    def constants(self) -> dict[str, Tensor]:
        found = {}
        if (table := rotary_table(self.prior)) is not None:
            found["transformer.pos_emb"] = table.to(self.joint.weight.device)
        if self.prior.config.tied:
            for kind in ("text_emb", "image_emb"):
                found |= {f"{kind}.linear.{k}": getattr(self.joint, k).detach() for k in ("weight", "bias")}
        return found

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """In releases before 1.3, which `centred` recognises by the names of weights, conv_like was centred."""
        state_dict = {n: v for n, v in state_dict.items() if n != "logits_mask"}
        if centred(state_dict, self.prior.config.transformer.shift):
            for layer in self.prior.modules():
                if isinstance(layer, Attention) and getattr(layer.sight, "name", "") == "conv_like":
                    layer.sight = Visibility("conv_centred", self.prior.layout).to(self.joint.weight.device)
        if (table := state_dict.get("transformer.pos_emb")) is not None:
            self._take_angles(table.float().reshape(-1, table.shape[-1])[:, ::2])
        return super().load_state_dict(state_dict, strict, assign)

    def _take_angles(self, angles: Tensor) -> None:
        """Take the file's rotary table, rounded as it is, as the original does. 1.0 left out its unused last row."""
        for module in self.prior.modules():
            if isinstance(module, Rotary) and module.turned == 2 * angles.shape[1]:
                module.turns[: len(angles)].copy_(torch.stack((angles.cos(), angles.sin()), -1))

    def used_elsewhere(self) -> list[nn.Parameter]:
        """Weights that are used outside of the module that owns them."""
        return [*self.joint.parameters(), *(getattr(self, n) for n in ("rows", "cols") if hasattr(self, n))]
