"""Every setting, as frozen dataclasses. It knows no torch."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt, MinLen

from tessera.errors import ConfigError
from tessera.settings import Checked, merge, nearest, short

PatternName = Literal["full", "axial_row", "axial_col", "conv_like", "conv_centred", "sparse", "all"]

# Types carry their ranges. Upper bounds lie far above what anybody trains, and far below what hangs a machine.
Count = Annotated[int, Ge(1), Le(1_000_000_000)]
CountOrZero = Annotated[int, Ge(0), Le(1_000_000_000)]
Batch = Annotated[int, Ge(1), Le(1_000_000)]
Pictures = Annotated[int, Ge(1), Le(1_000_000)]
Width = Annotated[int, Ge(1), Le(65_536)]
Depth = Annotated[int, Ge(1), Le(1_024)]
Processes = Annotated[int, Ge(0), Le(1_024)]
Pixels = Annotated[int, Ge(1), Le(4_096)]
Channels = Annotated[int, Ge(1), Le(4)]
Vocabulary = Annotated[int, Ge(0), Le(1_048_576)]
TextLength = Annotated[int, Ge(0), Le(16_384)]
GridSide = Annotated[int, Ge(0), Le(256)]
Codes = Annotated[int, Ge(2), Le(65_536)]
Seed = Annotated[int, Ge(0), Lt(2**63)]
Share = Annotated[float, Ge(0), Le(1)]
ShareBelowOne = Annotated[float, Ge(0), Lt(1)]
ShareAboveZero = Annotated[float, Gt(0), Le(1)]
Positive = Annotated[float, Gt(0), Le(1e30)]
NotNegative = Annotated[float, Ge(0), Le(1e30)]
Guidance = Annotated[float, Ge(-1_000), Le(1_000)]


@dataclass(frozen=True, kw_only=True)
class DVAEConfig(Checked):
    """A discrete VAE (DALL-E, Ramesh et al. 2021, section 2.1): pixels <-> a grid of codes."""

    pixels: Pixels = 64
    """Side of the square pictures, a multiple of 2 ** layers."""
    channels: Channels = 3
    """1 grey, 2 grey + alpha, 3 colour, 4 colour + alpha."""
    quantizer: Literal["fsq", "gumbel"] = "fsq"
    """fsq rounds each channel (nothing can collapse); gumbel chooses from a codebook, as DALL-E 1 did."""
    levels: Annotated[tuple[Codes, ...], MinLen(1)] = (8, 5, 5, 5)
    """fsq: levels of each channel; their product is the number of codes."""
    codes: Codes = 512
    """gumbel: how many different codes there are (the codebook's size)."""
    code_dim: Width = 256
    """gumbel: width of a code's vector."""
    layers: Annotated[int, Ge(1), Le(12)] = 3
    """Halvings of the side: the grid of codes has side pixels / 2 ** layers."""
    resblocks: Annotated[int, Ge(0), Le(1_024)] = 1
    """Residual blocks at the lowest resolution, in the encoder and in the decoder."""
    hidden: Width = 64
    """Width of every convolution."""
    reconstruction: Literal["mse", "smooth_l1"] = "mse"
    """What a wrong pixel costs."""
    kl_weight: NotNegative = 0.0
    """Weight of KL(codes of a picture || uniform), averaged over the batch."""
    temperature: Positive = 1.0
    """Gumbel-softmax temperature at the first step."""
    temperature_end: Positive = 0.1
    """Temperature at the last step; it falls geometrically with the share of training that is done."""
    straight_through: bool = False
    """Use one-hot codes in the forward pass (Jang et al. 2017)."""
    reinmax: bool = False
    """Second-order gradient for straight_through (Liu et al. 2023)."""
    mean: tuple[Annotated[float, Ge(-1e6), Le(1e6)], ...] = (0.5, 0.5, 0.5, 0.0)
    """Subtracted from the pixels, channel by channel."""
    std: tuple[Annotated[float, Ge(1e-6), Le(1e6)], ...] = (0.5, 0.5, 0.5, 1.0)
    """Divides the pixels, channel by channel."""

    @property
    def grid(self) -> int:
        return self.pixels >> self.layers

    @property
    def vocab(self) -> int:
        """How many different codes there are, whatever makes them."""
        return math.prod(self.levels) if self.quantizer == "fsq" else self.codes

    def rules(self) -> None:
        if self.pixels % 2**self.layers:
            raise ConfigError(
                f"model.pixels is {self.pixels} and model.layers is {self.layers}: the side must be a multiple of "
                f"2 ** layers = {2**self.layers}. Try model.pixels {2**self.layers * max(1, self.grid)}."
            )
        if self.vocab > 65536:
            raise ConfigError(f"The image tokenizer has {self.vocab} codes; packed codes hold at most 65,536.")
        if self.quantizer == "fsq" and (self.straight_through or self.reinmax or self.kl_weight):
            raise ConfigError("model.straight-through, reinmax and kl-weight belong to --model.quantizer gumbel.")
        if self.reinmax and not self.straight_through:
            raise ConfigError("model.reinmax corrects the straight-through gradient: set model.straight-through too.")
        if self.temperature_end > self.temperature:
            raise ConfigError(
                f"model.temperature-end is {self.temperature_end}; it must be at most model.temperature "
                f"({self.temperature})."
            )
        if min(len(self.mean), len(self.std)) < self.channels:
            raise ConfigError(f"model.mean and model.std need {self.channels} numbers each.")


@dataclass(frozen=True, kw_only=True)
class TransformerConfig(Checked):
    """A stack of attention and feed-forward branches over text and a grid of codes."""

    dim: Width = 256
    """Width of the residual stream."""
    depth: Depth = 6
    """Layers; each is one attention and one feed-forward branch."""
    heads: Annotated[int, Ge(1), Le(1_024)] = 4
    """Attention heads."""
    head_dim: Annotated[int, Ge(1), Le(8_192)] = 64
    """Width of a head."""
    patterns: Annotated[tuple[PatternName, ...], MinLen(1)] = ("full",)
    """What a position may see, cycled over depth: full, axial_row, axial_col, conv_like, conv_centred, sparse; all (the
    future too) is for encoders alone."""
    positions: Literal["none", "axial", "rotary", "rotary_dalle1", "rotary_dalle1_half"] = "rotary"
    """axial: learned row + column tables; rotary: 2-D rotary; rotary_dalle1: DALLE-pytorch's, values turned too; its
    files in half precision rounded the angles, which the last repeats."""
    norm: Literal["rms", "layer"] = "rms"
    """RMSNorm or LayerNorm before each branch."""
    qk_norm: bool = True
    """Normalise queries and keys (Henry et al. 2020)."""
    ff: Literal["swiglu", "geglu", "relu2"] = "swiglu"
    """Activation of the feed-forward branch."""
    ff_mult: Annotated[float, Gt(0), Le(64)] = 8 / 3
    """Hidden width of the feed-forward branch, in multiples of dim."""
    bias: bool = False
    """Biases on the output projections and in the feed-forward branch."""
    shift: bool = False
    """Token shift: part of each position's channels comes from the position before, above or left."""
    sandwich: bool = False
    """A second norm after each branch (CogView)."""
    layer_scale: bool = False
    """Learned scale on each branch's output (Touvron et al. 2021)."""
    reversible: bool = False
    """Reversible wiring: activation memory does not grow with depth (Gomez et al. 2017)."""
    stable: bool = False
    """DALLE-pytorch's `stable`: output divided by its largest value, damped embedding gradients."""
    zero_init: bool = True
    """Start each branch at zero and embeddings small; off gives torch's defaults, as DALL-E 1 had them."""
    attn_dropout: ShareBelowOne = 0.0
    """Dropout after attention."""
    ff_dropout: ShareBelowOne = 0.0
    """Dropout inside the feed-forward branch."""
    shared_attn: tuple[str, ...] = ()
    """Ids cycled over depth; layers with the same id share their attention weights."""
    shared_ff: tuple[str, ...] = ()
    """Ids cycled over depth; layers with the same id share their feed-forward weights."""

    def rules(self) -> None:
        if self.positions == "rotary" and self.head_dim % 8:
            raise ConfigError(f"head_dim is {self.head_dim}; rotary positions need a multiple of 8.")
        if self.positions.startswith("rotary_dalle1") and self.head_dim < 6:
            raise ConfigError(f"head_dim is {self.head_dim}; rotary_dalle1 positions need at least 6.")
        parameters = self.depth * self.dim * (4 * self.heads * self.head_dim + 2 * self.ff_mult * self.dim)
        if parameters > 1e11:
            raise ConfigError(
                f"dim {self.dim}, depth {self.depth}, heads {self.heads} and head_dim {self.head_dim} make over "
                f"{parameters:.1g} parameters; the most is 1e11."
            )
        pattern_of: dict[str, str] = {}
        for i in range(self.depth if self.shared_attn else 0):
            name, pattern = self.shared_attn[i % len(self.shared_attn)], self.patterns[i % len(self.patterns)]
            if pattern_of.setdefault(name, pattern) != pattern:
                raise ConfigError(
                    f"shared_attn id '{name}' stands at layers with patterns {pattern_of[name]} and {pattern}; "
                    "layers that share attention must share the pattern."
                )


@dataclass(frozen=True, kw_only=True)
class TextToImageConfig(Checked):
    """The prior: text tokens, then image codes, one after the other (Ramesh et al. 2021, section 2.2)."""

    text_vocab: Vocabulary = 0
    """Size of the text vocabulary without padding; 0 takes it from the text tokenizer."""
    text_len: TextLength = 0
    """Text tokens per caption, padded; 0 chooses it from the captions."""
    image_vocab: Vocabulary = 0
    """How many codes there are; 0 takes it from the image tokenizer."""
    grid: GridSide = 0
    """Side of the grid of codes; 0 takes it from the image tokenizer."""
    image_weight: NotNegative = 7.0
    """loss = (text + image_weight * image) / (1 + image_weight)."""
    learn_padding: bool = False
    """Let padding tokens count in the text loss, as DALL-E 1 did."""
    tied: bool = False
    """Embeddings and output heads share their weights."""
    transformer: TransformerConfig = field(default_factory=TransformerConfig)

    def rules(self) -> None:
        if "all" in self.transformer.patterns:
            raise ConfigError("patterns names 'all', which shows a prior the codes it must predict; try 'full'.")


@dataclass(frozen=True, kw_only=True)
class CLIPConfig(Checked):
    """The judge: scores a picture against a sentence (CLIP, Radford et al. 2021), as DALLE-pytorch built it."""

    text_vocab: Vocabulary = 0
    """Size of the text vocabulary without padding; 0 takes it from the text tokenizer."""
    text_len: TextLength = 0
    """Text tokens per caption, padded; 0 chooses it from the captions."""
    pixels: Pixels = 64
    """Side of the square pictures, a multiple of patch."""
    patch: Pixels = 8
    """Side of a patch."""
    channels: Channels = 3
    """1 grey, 2 grey + alpha, 3 colour, 4 colour + alpha."""
    dim_text: Width = 256
    """Width of the text encoder."""
    dim_image: Width = 256
    """Width of the picture encoder."""
    dim_latent: Width = 256
    """Width of what is compared."""
    text_depth: Depth = 4
    """Layers of the text encoder."""
    image_depth: Depth = 4
    """Layers of the picture encoder."""
    text_heads: Annotated[int, Ge(1), Le(1_024)] = 4
    image_heads: Annotated[int, Ge(1), Le(1_024)] = 4
    head_dim: Annotated[int, Ge(1), Le(8_192)] = 64
    """Width of a head."""

    def rules(self) -> None:
        if self.pixels % self.patch:
            raise ConfigError(f"model.pixels is {self.pixels}; it must be a multiple of model.patch ({self.patch}).")


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
    model: DVAEConfig | TextToImageConfig | CLIPConfig = field(default_factory=DVAEConfig)
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
        if isinstance(self.model, TextToImageConfig) and not (self.tokens.image or self.data.codes):
            raise ConfigError(
                "A text-to-image run needs an image tokenizer: train one (tessera train dvae-s-64 --data.path ...) "
                "and name its folder with --tokens.image, or let `tessera learn` do both."
            )
        if not (self.data.path or self.data.codes):
            raise ConfigError("data.path is empty: name the folder with your captioned pictures.")
        seconds(self.budget)


@dataclass(frozen=True, kw_only=True)
class SampleConfig(Checked):
    """How codes are drawn from the model's predictions."""

    temperature: NotNegative = 1.0
    """0 always takes the likeliest code; above 1 is wilder."""
    top_k: Annotated[float, Ge(0), Le(1_048_576)] = 0.0
    """Keep only the k likeliest codes; below 1 a share of the codebook; 0 keeps all."""
    top_p: ShareAboveZero = 1.0
    """Keep the likeliest codes that hold this much probability together (Holtzman et al. 2020)."""
    guidance: Guidance = 1.0
    """Push away from the picture without a caption (Ho & Salimans 2022); 1 is off, 2 to 5 is usual."""
    ahead: Annotated[int, Ge(1), Le(65_536)] = 1
    """Read this many codes at once, all but the first guessed; the pictures stay the same. Pays for one at a time."""

    def rules(self) -> None:
        if 0 < self.temperature < 1e-6:
            raise ConfigError(f"temperature is {self.temperature}; give 0 for the likeliest code, or at least 1e-6.")
        if self.top_k > 1 and self.top_k != int(self.top_k):
            raise ConfigError(f"top-k is {self.top_k}; give a count (50) or a share of the codebook (0.1).")


@dataclass(frozen=True, kw_only=True)
class LearnConfig(Checked):
    """What `learn` may be told; everything else it chooses for the data and the machine."""

    pictures: str = ""
    """Folder of captioned pictures, in any layout that `tessera data check` accepts."""
    captions: str = ""
    """A second folder or COCO JSON with the captions, where they are not beside the pictures or below them."""
    out: str = ""
    """Run folder; by default runs/<name of the pictures' folder>."""
    budget: str = "30m"
    """How long the whole may take; the parts share it."""
    seed: Seed = 0
    """All randomness is a function of it."""
    pixels: Annotated[int, Ge(0), Le(4_096)] = 0
    """Side of the pictures; 0 chooses 64 on a CPU, up to 256 on a GPU."""
    grid: Literal[0, 8, 16, 32] = 0
    """Side of the grid of codes; 0 chooses 16. Fewer codes are learned faster and keep less of a picture."""
    crop: ShareAboveZero = 0.75
    """Smallest area share of the random crops; 1 where pictures must be taken whole."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""
    samples: Count = 16
    """Held-out captions drawn for the report."""
    guidance: Guidance = 2.0
    """Guidance scale of the drawings in the report."""

    def rules(self) -> None:
        if not self.pictures:
            raise ConfigError("Name the folder with your captioned pictures: tessera learn PICTURES.")
        if self.seed + self.samples > 2**63:
            raise ConfigError(f"seed is {self.seed}; with {self.samples} samples the last seed would be over 2^63 - 1.")
        if seconds(self.budget) == float("inf"):
            raise ConfigError("learn needs a budget, for example --budget 30m.")
        if self.pixels % 16:
            raise ConfigError(f"pixels is {self.pixels}; it must be a multiple of 16.")
        if self.pixels and self.grid > self.pixels // 2:
            raise ConfigError(f"grid is {self.grid}; it must be at most half of pixels ({self.pixels}).")


def seconds(text: str) -> float:
    """A duration as people write it: 90s, 20m, 1.5h, 2d; plain numbers are seconds, nothing is for ever."""
    if not text:
        return float("inf")
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhd]?)\s*", text.lower())
    found = float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]] if match else 0.0
    if not 0 < found < 1e9:
        raise ConfigError(f"{short(text)} is not a duration; write for example 90s, 20m or 1.5h.")
    return found


def to_dict(config: Any) -> dict[str, Any]:
    """A config as plain JSON-able values; a model says of which kind it is."""
    plain = json.loads(json.dumps(dataclasses.asdict(config)))
    if isinstance(config, TrainConfig):
        plain["model"] = {"kind": kind_of(config.model), **plain["model"]}
    return plain


MODELS: dict[str, type] = {"dvae": DVAEConfig, "t2i": TextToImageConfig, "clip": CLIPConfig}


def kind_of(model: Any) -> str:
    return next(kind for kind, cls in MODELS.items() if type(model) is cls)


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
