"""One training run: its data, tokenizers, optimiser and machine."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le

from tessera.config.merging import Checked, merge, nearest, short
from tessera.config.networks import MODELS, DVAEConfig, NetworkConfig, kind_of
from tessera.config.ranges import (
    Batch,
    Count,
    CountOrZero,
    NotNegative,
    Positive,
    Processes,
    Seed,
    Share,
    ShareAboveZero,
    ShareBelowOne,
    seconds,
)
from tessera.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class DataConfig(Checked):
    """Where the captioned pictures are, and what is done to them."""

    path: str = ""
    """Folder of pictures with captions: same-name .txt, two trees, metadata.{csv,jsonl,parquet} or COCO JSON; or
    webdataset shards: a .tar, a folder of them, train-{000..099}.tar, http(s)://, gs://, s3://, pipe:COMMAND; or
    hf:NAME, a Hugging Face dataset."""
    captions: str = ""
    """A second folder (or COCO JSON file) with the captions, where they are not beside the pictures; for shards and
    datasets the column: txt, json.caption."""
    codes: str = ""
    """Folder of packed codes written by an earlier encoding; the image tokenizer then leaves the training step."""
    holdout: ShareBelowOne = 0.05
    """Share of the pairs kept back for the held-out loss, chosen by a stable hash of their names."""
    crop: ShareAboveZero = 0.75
    """Smallest area share of a random crop; 1 always takes the largest centred square."""
    flip: bool = False
    """Mirror half of the pictures."""
    truncate: bool = False
    """Cut captions that are longer than model.text-len instead of refusing them."""
    workers: Processes = 1
    """Processes that read pictures; 0 reads them in the training process."""


@dataclass(frozen=True, kw_only=True)
class TokensConfig(Checked):
    """Which tokenizers the prior stands on."""

    image: str = ""
    """A run folder with a trained image tokenizer."""
    text: str = "bpe"
    """bpe trains one on your captions; clip is CLIP's (49,408 entries); chinese is bert-base-chinese; or a file: a
    tokenizer.json, a YouTokenToMe .model, a BERT vocab.txt, CLIP's merges."""
    vocab: Annotated[int, Ge(257), Le(1_048_576)] = 4096
    """Largest vocabulary of a trained bpe."""


@dataclass(frozen=True, kw_only=True)
class OptimConfig(Checked):
    """How the weights move."""

    name: Literal["adamw", "adam", "muon"] = "adamw"
    """muon takes torch.optim.Muon for the matrices of the stack and AdamW for the rest."""
    lr: Positive = 1e-3
    """Peak learning rate."""
    betas: tuple[ShareBelowOne, ShareBelowOne] = (0.9, 0.95)
    weight_decay: NotNegative = 0.05
    """Only on matrices: never on norms, biases or embeddings."""
    schedule: Literal["cosine", "constant", "exponential", "plateau"] = "cosine"
    """plateau halves the rate when the held-out loss stops falling."""
    warmup: CountOrZero = 100
    """Steps over which the rate rises from 0."""
    lr_end: Share = 0.05
    """Share of the peak rate left at the end of cosine and exponential, and the least that plateau leaves."""
    plateau_patience: CountOrZero = 3
    """Held-out losses without improvement before plateau halves the rate."""
    clip: NotNegative = 1.0
    """Largest gradient norm; 0 does not clip."""
    batch: Batch = 32
    """Pictures per step."""
    accumulate: Batch = 1
    """Micro-batches a step is split into; batch must be a multiple."""
    ema: ShareBelowOne = 0.0
    """Decay of the mean of the weights (EMA): after each step mean = ema * mean + (1 - ema) * weights. 0.999 is a mean
    over about the last 1,000 steps; the first steps forget faster. Held-out losses, previews and drawing use the mean;
    0 is off."""
    drop_condition: Share = 0.1
    """Share of captions replaced by nothing, so that guidance can be used in drawing."""

    def rules(self) -> None:
        if self.batch % self.accumulate:
            raise ConfigError(
                f"optim.batch is {self.batch} and optim.accumulate {self.accumulate}: "
                "the batch must be a positive multiple of the micro-batches it is split into."
            )


@dataclass(frozen=True, kw_only=True)
class MachineConfig(Checked):
    """What the run stands on."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""
    precision: Literal["auto", "float32", "bf16", "fp16"] = "auto"
    """auto takes bf16 autocast where the hardware computes in it; fp16 is with scaled losses."""
    engine: Literal["auto", "single", "ddp", "fsdp", "deepspeed", "horovod"] = "auto"
    """auto is ddp where torchrun or another launcher started several processes, else single."""
    zero: Literal[0, 1, 2, 3] = 2
    """deepspeed: what is cut up over ranks; 1 optimiser state, 2 gradients too, 3 weights too."""
    offload: Literal["none", "optimizer", "parameters"] = "none"
    """deepspeed: what waits in main memory (or on --machine.nvme); parameters means both."""
    nvme: str = ""
    """deepspeed: a folder on a fast disk to offload to."""
    deepspeed: str = ""
    """deepspeed: its own JSON file, taken whole; what it and these settings both say must agree."""
    recompute: Literal["auto", "on", "off"] = "auto"
    """on: keep only what enters each branch (of a reversible model: nothing) and compute the rest again in the backward
    pass: less memory, up to a third slower. auto does it for reversible models."""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile; auto uses it on CUDA, where it pays."""
    threads: Processes = 0
    """CPU threads; 0 leaves torch's choice."""


@dataclass(frozen=True, kw_only=True)
class TrackConfig(Checked):
    """Where a run's numbers and pictures go besides its own folder."""

    use: tuple[Literal["wandb", "tensorboard", "trackio"], ...] = ()
    """Any of wandb (WANDB_MODE=offline works too), tensorboard, trackio."""
    project: str = "tessera"
    entity: str = ""
    """wandb: the team."""
    name: str = ""
    """By default the run folder's."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Checked):
    """One training run. The same command, given again, goes on where it stopped."""

    preset: str = ""
    """The named run this one began from."""
    out: str = ""
    """Run folder; by default runs/<preset>."""
    steps: CountOrZero = 1000
    """Optimiser steps."""
    budget: str = ""
    """Stop after this much training time and fit the schedule into it: 90s, 20m, 1.5h."""
    seed: Seed = 0
    """All randomness is a function of it."""
    save_every: Count = 200
    """Steps between checkpoints."""
    keep: Count = 2
    """Newest checkpoints kept, besides the best."""
    valid_every: CountOrZero = 100
    """Steps between held-out losses; 0 never."""
    log_every: Count = 10
    """Steps between rows of numbers."""
    preview_every: CountOrZero = 200
    """Steps between sample pictures; 0 never."""
    patience: CountOrZero = 0
    """Stop after this many held-out losses without a new best; 0 never."""
    model: NetworkConfig = field(default_factory=DVAEConfig)
    data: DataConfig = field(default_factory=DataConfig)
    tokens: TokensConfig = field(default_factory=TokensConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
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


def to_dict(config: Any) -> dict[str, Any]:
    """A config as plain JSON-able values; a model says of which kind it is."""
    plain = json.loads(json.dumps(dataclasses.asdict(config)))
    if isinstance(config, TrainConfig):
        plain["model"] = {"kind": kind_of(config.model), **plain["model"]}
    return plain


def train_config(plain: dict[str, Any]) -> TrainConfig:
    """The TrainConfig that `to_dict` wrote. Raises ConfigError on anything unknown."""
    model = plain.get("model", {}) if isinstance(plain, dict) else None
    if not isinstance(model, dict):
        raise ConfigError("A run's settings are a table, and `model` in it is one; this is another thing.")
    kind = model.get("kind", "dvae")
    if not isinstance(kind, str) or kind not in MODELS:
        near = nearest(kind, MODELS) if isinstance(kind, str) else ""
        raise ConfigError(f"A model of kind {short(kind)} is unknown{near or '.'} Known: {', '.join(MODELS)}.")
    model = {name: value for name, value in model.items() if name != "kind"}
    return merge(TrainConfig(model=MODELS[kind]()), {**plain, "model": model})
