"""One training run: its optimiser, its machine, and all that is set for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from tessera.config.casting import seconds
from tessera.config.data import DataConfig, NoiseConfig, TokensConfig
from tessera.config.dvae import DVAEConfig
from tessera.config.merging import Checked
from tessera.config.network import NetworkConfig
from tessera.config.ranges import (
    Batch,
    Count,
    CountOrZero,
    NotNegative,
    Positive,
    Processes,
    Seed,
    Share,
    ShareBelowOne,
)
from tessera.config.tracking import TrackConfig
from tessera.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class OptimConfig(Checked):
    """The optimiser and its schedule."""

    name: Literal["adamw", "adam", "muon"] = "adamw"
    """muon takes Muon for matrices and the kernels of convolutions, and AdamW for the rest."""
    lr: Positive = 1e-3
    """Peak learning rate."""
    muon_lr: NotNegative = 0.0
    """Peak learning rate of what Muon moves; 0 takes lr."""
    betas: tuple[ShareBelowOne, ShareBelowOne] = (0.9, 0.95)
    weight_decay: NotNegative = 0.05
    """Only on matrices: never on norms, biases or embeddings."""
    schedule: Literal["cosine", "constant", "exponential", "plateau"] = "cosine"
    """How the rate falls; plateau halves it when the held-out loss stops falling."""
    warmup: CountOrZero = 100
    """Steps over which the rate rises from 0."""
    warmup_share: Share = 0.0
    """Share of the training that this takes at the least: short trainings, of which warmup is little, rise longer."""
    lr_end: Share = 0.05
    """Share of the peak rate at the end of cosine and exponential, and the least share that plateau goes down to."""
    plateau_patience: CountOrZero = 3
    """Held-out losses without improvement before plateau halves the rate."""
    clip: NotNegative = 1.0
    """Clip the gradient norm to this; 0 does not clip."""
    batch: Batch = 32
    """Pictures per step."""
    accumulate: Batch = 1
    """Micro-batches a step is split into; batch must be a multiple."""
    ema: ShareBelowOne = 0.0
    """Decay of the mean of the weights (EMA): after each step mean = ema * mean + (1 - ema) * weights. 0.999 is a mean
    over about the last 1,000 steps; the first steps forget faster. Held-out losses, previews and drawing use the mean;
    0 is off."""
    drop_condition: Share = 0.1
    """Share of captions dropped in training, so that guidance can be used in drawing."""

    def rules(self) -> None:
        if self.batch % self.accumulate:
            raise ConfigError(
                f"optim.batch is {self.batch}: make it a positive multiple of accumulate, {self.accumulate}."
            )


@dataclass(frozen=True, kw_only=True)
class MachineConfig(Checked):
    """The device, the precision and the engine that a run uses."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""
    precision: Literal["auto", "float32", "bf16", "fp16"] = "auto"
    """auto takes bf16 autocast where the hardware supports it; fp16 scales the loss."""
    engine: Literal["auto", "single", "ddp", "fsdp", "deepspeed", "horovod"] = "auto"
    """auto takes ddp where torchrun or another launcher started several processes, else single."""
    zero: Literal[0, 1, 2, 3] = 2
    """deepspeed: what is sharded over ranks; 1 optimiser state, 2 gradients too, 3 weights too."""
    offload: Literal["none", "optimizer", "parameters"] = "none"
    """deepspeed: what is kept in main memory (or on --machine.nvme); parameters means both."""
    nvme: str = ""
    """deepspeed: a folder on a fast disk to offload to."""
    deepspeed: str = ""
    """deepspeed: a JSON file of its own settings; where these settings say the same thing, both must agree."""
    recompute: Literal["auto", "on", "off"] = "auto"
    """Gradient checkpointing. on: keep only the input of each branch (nothing in a reversible model) and compute the
    rest again in the backward pass: less memory, up to a third slower. auto does so for reversible models."""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile; auto uses it on CUDA, where it is faster."""
    threads: Processes = 0
    """CPU threads; 0 leaves the choice to torch."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Checked):
    """One training run. The same command, given again, resumes it."""

    preset: str = ""
    """The preset that this run began from."""
    out: str = ""
    """Run folder; by default runs/PRESET."""
    steps: CountOrZero = 1000
    """Optimiser steps."""
    budget: str = ""
    """Stop after this much training time and fit the schedule into it: 90s, 20m, 1.5h."""
    seed: Seed = 0
    """Every random number follows from it."""
    save_every: Count = 200
    """Steps between checkpoints."""
    keep: Count = 2
    """How many of the newest checkpoints to keep, besides the best."""
    valid_every: CountOrZero = 100
    """Steps between held-out losses; 0 measures none."""
    log_every: Count = 10
    """Steps between rows of metrics."""
    preview_every: CountOrZero = 200
    """Steps between sample pictures; 0 draws none."""
    patience: CountOrZero = 0
    """Stop after this many held-out losses without a new best; 0 does not stop early."""
    stop_collapsed: bool = False
    """Stop where held-out pictures show that an image tokenizer's codes have collapsed, which no further step mends."""
    model: NetworkConfig = field(default_factory=DVAEConfig)
    data: DataConfig = field(default_factory=DataConfig)
    tokens: TokensConfig = field(default_factory=TokensConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    machine: MachineConfig = field(default_factory=MachineConfig)
    track: TrackConfig = field(default_factory=TrackConfig)

    def rules(self) -> None:
        if self.patience and not (self.valid_every and self.data.holdout):
            raise ConfigError("patience counts held-out losses: it needs valid-every and data.holdout above 0.")
        if self.optim.schedule == "plateau" and not (self.valid_every and self.data.holdout):
            raise ConfigError("optim.schedule plateau follows the held-out loss: set valid-every and data.holdout.")
        if self.model.needs_codes and not (self.tokens.image or self.data.codes):
            raise ConfigError(
                "A text-to-image run needs an image tokenizer: train one (tessera train dvae-s-64 --data.path ...) "
                "and name its folder with --tokens.image, or let `tessera learn` do both."
            )
        if not (self.data.path or self.data.codes):
            raise ConfigError("data.path is empty: name the folder with your captioned pictures.")
        seconds(self.budget)
