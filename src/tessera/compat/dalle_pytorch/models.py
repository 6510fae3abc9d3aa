"""DALLE-pytorch's classes as faces of this house's models: their arguments, their weight names, their numbers.

What stands in them twice is names only. Where the original's numbers were wrong (its cache, guidance, text completion)
these are right.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import _IncompatibleKeys

from tessera.config import SampleConfig
from tessera.errors import ConfigError, DataError
from tessera.generate import captions, raster
from tessera.imports import dalle_pytorch as names
from tessera.imports import pretrained
from tessera.models import clip as house_clip
from tessera.models import dvae as house_dvae
from tessera.models import saved
from tessera.models.text_to_image import TextToImage
from tessera.nn.attention import Attention, sight
from tessera.nn.rotary import Rotary
from tessera.nn.stack import Scale

Seat = tuple[str, Tensor, tuple[int, ...]]
"""A weight: DALLE-pytorch's name, the tensor, its shape there (or () for the same)."""


class Face(nn.Module):
    """A model of the house whose state dict and parameters go by DALLE-pytorch's names."""

    def seats(self) -> list[Seat]:
        raise NotImplementedError

    def constants(self) -> dict[str, Tensor]:
        """What a file holds besides weights."""
        return {}

    def state_dict(self, *args: Any, destination: Any = None, prefix: str = "", keep_vars: bool = False) -> Any:
        found = OrderedDict() if destination is None else destination
        for name, value, shape in self.seats():
            value = value if keep_vars else value.detach()
            fits = shape and value.shape != shape and value.numel()  # ZeRO 3 leaves nothing of what is cut up
            found[prefix + name] = value.reshape(shape) if fits else value
        found.update({prefix + name: value for name, value in self.constants().items()})
        return found

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Takes the names of every release. Raises RuntimeError as torch does where `strict` finds others."""
        given = {names.canonical(name): (name, value) for name, value in state_dict.items()}
        own = {names.canonical(name): (name, value) for name, value, _ in self.seats()}
        silent = {names.canonical(name) for name in self.constants()}
        missing = [name for key, (name, _) in own.items() if key not in given]
        unknown = [name for key, (name, _) in given.items() if key not in own and key not in silent]
        wrong = []
        with torch.no_grad():
            for key in own.keys() & given.keys():
                target, (name, value) = own[key][1], given[key]
                if value.numel() == target.numel():
                    target.copy_(value.reshape(target.shape))
                else:
                    wrong.append(f"{name} is {list(value.shape)}, not {list(target.shape)}")
        if wrong or (strict and (missing or unknown)):
            raise RuntimeError(
                f"Error(s) in loading state_dict for {type(self).__name__}: missing {missing[:4]} ({len(missing)}), "
                f"unexpected {unknown[:4]} ({len(unknown)}), of another shape {wrong[:4]}."
            )
        return _IncompatibleKeys(missing, unknown)

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        """In the original's order, so that its optimiser states fit."""
        seen: set[int] = set()
        for name, value, _ in self.seats():
            if isinstance(value, nn.Parameter) and not (remove_duplicate and id(value) in seen):
                seen.add(id(value))
                yield f"{prefix}{'.' if prefix else ''}{name}", value


def _seats(model: nn.Module, table: names.Names) -> list[Seat]:
    own = dict(model.named_parameters(remove_duplicate=False))
    return [(theirs, own[ours], shape) for theirs, ours, shape in table]


def _widen_scales(model: nn.Module) -> None:
    """[D] -> [1, 1, D], as their optimiser states have it."""
    for module in model.modules():
        if isinstance(module, Scale):
            module.scale = nn.Parameter(module.scale.detach()[None, None])


# Image tokenizers: num_tokens, image_size, num_layers, channels, get_codebook_indices, decode.


class DiscreteVAE(Face):
    """The discrete VAE. `decode` and reconstructions are in normalised pixels, as the original gives them;
    `tessera.load` and the command line give 0 ... 1."""

    def __init__(self, image_size: int = 256, num_tokens: int = 512, codebook_dim: int = 512, num_layers: int = 3,
                 num_resnet_blocks: int = 0, hidden_dim: int = 64, channels: int = 3, smooth_l1_loss: bool = False,
                 temperature: float = 0.9, straight_through: bool = False, reinmax: bool = False,
                 kl_div_loss_weight: float = 0.0,
                 normalization: Any = names.DVAE_OPTIONS["normalization"]):  # fmt: skip
        super().__init__()
        given = {k: v for k, v in locals().items() if k in names.DVAE_OPTIONS}
        self.options = given
        self.model = house_dvae.DiscreteVAE(names.dvae_config(given))
        self.image_size, self.num_tokens, self.num_layers, self.channels = image_size, num_tokens, num_layers, channels
        self.temperature = temperature

    def seats(self) -> list[Seat]:
        return _seats(self.model, names.dvae_names(self.model))

    @property
    def encoder(self) -> nn.Module:
        return self.model.encoder

    @property
    def decoder(self) -> nn.Module:
        return self.model.decoder

    @property
    def codebook(self) -> nn.Module:
        return self.model.quantize.codebook  # type: ignore[return-value]

    def norm(self, images: Tensor) -> Tensor:
        return self.model.normalised(images)

    @torch.no_grad()
    def get_codebook_indices(self, images: Tensor) -> Tensor:
        return self.model.encode(images)

    def decode(self, img_seq: Tensor) -> Tensor:
        return self.model.decoded(img_seq)

    def forward(self, img: Tensor, return_loss: bool = False, return_recons: bool = False,
                return_logits: bool = False, temp: float | None = None) -> Any:  # fmt: skip
        if img.shape[-1] != self.image_size or img.shape[-2] != self.image_size:
            raise DataError(f"The pictures are {img.shape[-1]} x {img.shape[-2]}, this VAE takes {self.image_size}.")
        if return_logits:
            return self.model.encoder(self.norm(img))
        again, parts = self.model.relaxed(img, self.temperature if temp is None else temp)
        if not return_loss:
            return again
        # The original sums the KL term over the batch instead of averaging it.
        loss = parts.reconstruction + parts.quantizer * len(img)
        return (loss, again) if return_recons else loss


class _Pretrained(Face):
    """A published tokenizer; `network` is the house's."""

    network: Any
    spelling: Callable[[str], str]
    channels, image_size = 3, 256

    def seats(self) -> list[Seat]:
        return [(self.spelling(name), value, ()) for name, value in self.network.named_parameters()]

    @property
    def num_tokens(self) -> int:
        return self.network.config.codes

    @torch.no_grad()
    def get_codebook_indices(self, img: Tensor) -> Tensor:
        return self.network.encode(img)

    def decode(self, img_seq: Tensor) -> Tensor:
        return self.network.decode(img_seq)

    def forward(self, img: Tensor) -> Tensor:
        raise NotImplementedError("a pretrained tokenizer is not trained here: call get_codebook_indices or decode")


class VQGanVAE(_Pretrained):
    """taming-transformers' VQGAN; without paths the ImageNet f16 model with 1,024 codes is downloaded."""

    def __init__(self, vqgan_model_path: str | None = None, vqgan_config_path: str | None = None):
        super().__init__()
        if vqgan_model_path is None:
            self.network = pretrained.published("vqgan-imagenet-f16-1024")
        else:
            yaml = Path(vqgan_config_path) if vqgan_config_path else None
            self.network = pretrained.vqgan(Path(vqgan_model_path), yaml)
        self.network.requires_grad_(False)
        self.num_layers = len(self.network.config.widths) - 1
        self.is_gumbel = self.network.config.gumbel

    def spelling(self, name: str) -> str:
        return f"model.{name}"


class OpenAIDiscreteVAE(_Pretrained):
    """OpenAI's dVAE; without paths encoder.pkl and decoder.pkl are downloaded. Their code is never run."""

    num_layers = 3

    def __init__(self, encoder_path: str | None = None, decoder_path: str | None = None):
        super().__init__()
        if encoder_path is None or decoder_path is None:
            self.network = pretrained.published("openai-dvae")
        else:
            self.network = pretrained.openai_dvae(Path(encoder_path), Path(decoder_path))
        self.network.requires_grad_(False)

    def spelling(self, name: str) -> str:
        return names.openai_name(name)


# The prior.

Slice = tuple[nn.Module, str, nn.Module, str, Any]
"""A module, its attribute, and what that is a part of: a module, its attribute, and which part. Plain values, so that a
model can be copied and saved whole."""


class DALLE(Face):
    """The prior with its image tokenizer. Text ids are 0 for padding, as DALLE-pytorch's tokenizers give them."""

    def __init__(self, *, dim: int, vae: Any, num_text_tokens: int = 10000, text_seq_len: int = 256, depth: int,
                 heads: int = 8, dim_head: int = 64, reversible: bool = False, attn_dropout: float = 0.0,
                 ff_dropout: float = 0.0, sparse_attn: bool = False, attn_types: Any = None,
                 loss_img_weight: float = 7, stable: bool = False, sandwich_norm: bool = False,
                 shift_tokens: bool = True, rotary_emb: bool = True, shared_attn_ids: Any = None,
                 shared_ff_ids: Any = None, share_input_output_emb: bool = False,
                 optimize_for_inference: bool = False):  # fmt: skip
        super().__init__()
        if not isinstance(vae, DiscreteVAE | OpenAIDiscreteVAE | VQGanVAE):
            raise ConfigError(
                f"vae is a {type(vae).__name__}; DALLE needs a DiscreteVAE, OpenAIDiscreteVAE or VQGanVAE."
            )
        if sparse_attn:
            warnings.warn(
                "sparse_attn does nothing, as in DALLE-pytorch; ask for attn_types=('sparse',) instead.", stacklevel=2
            )
        given = {k: v for k, v in locals().items() if k in names.DALLE_OPTIONS}
        self.options = given
        config = names.dalle_config(given, vae.num_tokens, vae.image_size >> vae.num_layers)
        self.vae = vae.requires_grad_(False)
        self.prior = TextToImage(config)
        self.text_seq_len, self.image_seq_len = text_seq_len, self.prior.layout.codes
        self.num_text_tokens = num_text_tokens + text_seq_len  # one padding id per position
        self.num_image_tokens = vae.num_tokens
        self.total_tokens = self.num_text_tokens + self.num_image_tokens
        self.total_seq_len = text_seq_len + self.image_seq_len
        self.loss_img_weight, self.stable = loss_img_weight, stable
        self._seat_joint_weights()

    def _seat_joint_weights(self) -> None:
        """Parameters whose shape there is another become ones of that shape; the house's models see slices of them."""
        p, c = self.prior, self.prior.config
        _widen_scales(p)
        joint = nn.Linear(c.transformer.dim, self.total_tokens)
        with torch.no_grad():
            joint.weight.copy_(torch.cat((p.text_head.weight, p.image_head.weight)))
            joint.bias.copy_(torch.cat((p.text_head.bias, p.image_head.bias)))  # type: ignore[list-item]
        self.joint = joint
        learned = c.transformer.positions == "axial"
        if learned:
            self.rows, self.cols = (nn.Parameter(t.detach()[None]) for t in (p.row_position, p.col_position))
        texts = self.num_text_tokens
        heads = ((p.text_head, slice(0, texts)), (p.image_head, slice(texts, None)))
        self._slices: list[Slice] = [
            (head, kind, self.joint, kind, part) for head, part in heads for kind in ("weight", "bias")
        ]
        if learned:
            self._slices += [(p, "row_position", self, "rows", 0), (p, "col_position", self, "cols", 0)]
        if c.tied:
            tables = ((p.text_embedding, slice(0, texts)), (p.image_embedding, slice(texts, None)))
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
        table = names.dalle_names(self.prior.config)
        vae = [(f"vae.{name}", value, shape) for name, value, shape in self.vae.seats()]
        return vae + [(theirs, own[ours], shape) for theirs, ours, shape in table]

    def constants(self) -> dict[str, Tensor]:
        found = {}
        if (table := names.rotary_table(self.prior)) is not None:
            found["transformer.pos_emb"] = table.to(self.joint.weight.device)
        if self.prior.config.tied:
            for kind in ("text_emb", "image_emb"):
                found |= {f"{kind}.linear.{k}": getattr(self.joint, k).detach() for k in ("weight", "bias")}
        return found

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Files of releases before 1.3 say by their names that conv_like was centred then."""
        state_dict = {n: v for n, v in state_dict.items() if n != "logits_mask"}
        if names.centred(state_dict, self.prior.config.transformer.shift):
            for layer in self.prior.modules():
                if isinstance(layer, Attention) and getattr(layer.sight, "name", "") == "conv_like":
                    layer.sight = sight("conv_centred", self.prior.layout).to(self.joint.weight.device)
        if (table := state_dict.get("transformer.pos_emb")) is not None:
            self._take_angles(table.float().reshape(-1, table.shape[-1])[:, ::2])
        return super().load_state_dict(state_dict, strict, assign)

    def _take_angles(self, angles: Tensor) -> None:
        """As the original does: the file's table counts, rounded as it may be; 1.0 left out the unused last row."""
        for module in self.prior.modules():
            if isinstance(module, Rotary) and module.turned == 2 * angles.shape[1]:
                module.turns[: len(angles)].copy_(torch.stack((angles.cos(), angles.sin()), -1))

    def _tokens(self, text: Tensor) -> Tensor:
        """Ids as the house pads them; the argument is not changed."""
        if text.shape[-1] != self.text_seq_len:
            raise DataError(f"The text has {text.shape[-1]} tokens; this model takes exactly {self.text_seq_len}.")
        vocab = self.prior.config.text_vocab
        padding = self.prior.null_caption(text)
        wrong = (text < 0) | ((text >= vocab) & (text != padding))
        if wrong.any():
            raise DataError(f"The text holds id {int(text[wrong][0])}; this model has text tokens 0 ... {vocab - 1}.")
        return torch.where(text == 0, padding, text)

    def _codes(self, image: Tensor | None, rows: int) -> Tensor:
        if image is None:
            return torch.zeros(rows, 0, dtype=torch.long, device=self.joint.weight.device)
        if image.ndim == 2:
            return image
        wanted = (self.vae.channels, self.vae.image_size, self.vae.image_size)
        if tuple(image.shape[1:]) != wanted:
            raise DataError(f"The pictures are {list(image.shape[1:])}; this model's tokenizer takes {list(wanted)}.")
        return self.vae.get_codebook_indices(image)

    def forward(self, text: Tensor, image: Tensor | None = None, return_loss: bool = False,
                null_cond_prob: float = 0.0, cache: dict | None = None) -> Tensor:  # fmt: skip
        """The loss, or the original's joint logits [b, n, total_tokens]: what a position cannot predict is the
        smallest float. With a `cache` dict, only the positions that it has not seen are computed and returned."""
        tokens, codes = self._tokens(text), self._codes(image, len(text))
        if null_cond_prob > 0:
            tokens = self.prior.drop_captions(tokens, torch.rand(len(text), device=text.device) < null_cond_prob)
        with self._whole() as prior:
            if return_loss:
                if codes.shape[1] != self.image_seq_len:
                    raise DataError(
                        f"The loss needs all {self.image_seq_len} image tokens; {codes.shape[1]} are given."
                    )
                return prior(tokens, codes).total
            return self._joint_logits(prior, tokens, codes, cache)

    def _joint_logits(self, prior: TextToImage, tokens: Tensor, codes: Tensor, cache: dict | None) -> Tensor:
        begin = 0
        if cache is None:
            hidden = prior.hidden(tokens, codes)
        else:
            past = cache.setdefault("past", prior.past(len(tokens), dtype=self.joint.weight.dtype))
            x, begin = prior.embed(tokens, codes[:, : self.image_seq_len - 1])[:, past.seen :], past.seen
            past.advance(x.shape[1])
            cache["offset"] = past.seen
            hidden = prior._finish(prior.transformer(x, past))
        cut = max(self.text_seq_len - begin, 0)
        text, image = prior.text_head.logits(hidden[:, :cut]), prior.image_head.logits(hidden[:, cut:])
        never = -torch.finfo(text.dtype).max
        text, image = (
            F.pad(text, (0, self.num_image_tokens), value=never),
            F.pad(image, (self.num_text_tokens, 0), value=never),
        )
        return torch.cat((text, image), 1)

    def forward_with_cond_scale(
        self, *args: Any, cond_scale: float = 1, cache: dict | None = None, **kwargs: Any
    ) -> Any:
        """null + (conditional - null) * cond_scale; each of the two has a past of its own in `cache`."""
        kept = ({}, {}) if cache is None else (cache.setdefault("conditional", {}), cache.setdefault("null", {}))
        caches = (None, None) if cache is None else kept
        logits = self(*args, cache=caches[0], **kwargs)
        if cond_scale == 1:
            return logits
        null = self(*args, cache=caches[1], **{**kwargs, "null_cond_prob": 1.0})
        return null + (logits - null) * cond_scale

    def _sampling(self, filter_thres: float, temperature: float, cond_scale: float) -> SampleConfig:
        """The original keeps a share of the joint vocabulary."""
        keep = max(int((1 - filter_thres) * self.total_tokens), 1)
        return SampleConfig(temperature=temperature, top_k=float(keep), guidance=float(cond_scale))

    @torch.no_grad()
    def generate_images(self, text: Tensor, *, clip: Any = None, filter_thres: float = 0.5, temperature: float = 1.0,
                        img: Tensor | None = None, num_init_img_tokens: int | None = None, cond_scale: float = 1.0,
                        use_cache: bool = False) -> Any:  # fmt: skip
        """Pictures as `vae.decode` gives them, or (pictures, scores) with a `clip`. Drawing is cached, whatever
        `use_cache` says; noise comes from torch's generator."""
        if (whole := self._gathered()) is not self:
            return whole.generate_images(
                text, clip=clip, filter_thres=filter_thres, temperature=temperature, img=img,
                num_init_img_tokens=num_init_img_tokens, cond_scale=cond_scale,
            )  # fmt: skip
        text = text[:, : self.text_seq_len]
        tokens = self._tokens(text)
        prime = tokens[:, :0]
        if img is not None:
            count = int(0.4375 * self.image_seq_len) if num_init_img_tokens is None else num_init_img_tokens
            if count >= self.image_seq_len:
                raise ConfigError(f"num_init_img_tokens is {count}; it must be below {self.image_seq_len}.")
            prime = self._codes(img, len(text))[:, :count]
        codes = self._evaluating(
            lambda prior: raster.codes(
                prior, tokens, _seeds(len(text)), self._sampling(filter_thres, temperature, cond_scale), prime
            )
        )
        images = self.vae.decode(codes.clone())  # a clone, because sampling ran in inference mode
        return images if clip is None else (images, clip(text, images, return_loss=False))

    @torch.no_grad()
    def generate_texts(self, tokenizer: Any, text: str | None = None, *, filter_thres: float = 0.5,
                       temperature: float = 1.0) -> tuple[Tensor, list[str]]:  # fmt: skip
        """(ids [1, T] with 0 for padding, captions). `tokenizer` is a tokenizer or the tokenizer module."""
        if (whole := self._gathered()) is not self:
            return whole.generate_texts(tokenizer, text, filter_thres=filter_thres, temperature=temperature)
        tokenizer = getattr(tokenizer, "tokenizer", tokenizer) if not hasattr(tokenizer, "encode") else tokenizer
        ids = [int(i) for i in tokenizer.encode(text)] if text else []
        begun = torch.tensor([ids], dtype=torch.long, device=self.joint.weight.device)
        rows = self._evaluating(
            lambda prior: captions.texts(prior, begun, _seeds(1), self._sampling(filter_thres, temperature, 1.0))
        )
        tokens = torch.where(rows >= self.prior.config.text_vocab, 0, rows)
        return tokens, [tokenizer.decode([i for i in row if i]) for row in tokens.tolist()]

    def used_elsewhere(self) -> list[nn.Parameter]:
        """Weights that are read outside of the module that owns them."""
        return [*self.joint.parameters(), *(getattr(self, n) for n in ("rows", "cols") if hasattr(self, n))]

    def _gathered(self) -> DALLE:
        """This model, or, where DeepSpeed has cut its weights up, a whole copy to draw with."""
        parts = [p for p in nn.Module.parameters(self) if hasattr(p, "ds_id")]
        if not parts:
            return self
        import deepspeed  # type: ignore[import-not-found]

        with deepspeed.zero.GatheredParameters(parts):
            state = {n: v.clone() for n, v in self.state_dict().items()}
        whole = DALLE(vae=self._whole_vae(self.vae), **self.options)
        whole.load_state_dict(state)
        return whole.to(self.joint.weight.device).eval()

    def _whole_vae(self, vae: Any) -> Any:
        if isinstance(vae, DiscreteVAE):
            return DiscreteVAE(**vae.options)
        made: Any = object.__new__(type(vae))
        nn.Module.__init__(made)
        made.__dict__.update({k: v for k, v in vae.__dict__.items() if not k.startswith("_")})
        made.network = saved.network(vae.network.config)
        return made

    def _evaluating(self, draw: Callable[[TextToImage], Tensor]) -> Tensor:
        training = self.training
        self.eval()
        try:
            with self._whole() as prior:
                return draw(prior)
        finally:
            self.train(training)


def _seeds(count: int) -> list[int]:
    return torch.randint(2**62, (count,)).tolist()


# The judge.


class CLIP(Face):
    """Scores of pictures against texts, or the training loss."""

    def __init__(self, *, dim_text: int = 512, dim_image: int = 512, dim_latent: int = 512,
                 num_text_tokens: int = 10000, text_enc_depth: int = 6, text_seq_len: int = 256, text_heads: int = 8,
                 num_visual_tokens: int = 512, visual_enc_depth: int = 6, visual_heads: int = 8,
                 visual_image_size: int = 256, visual_patch_size: int = 32, channels: int = 3):  # fmt: skip
        super().__init__()
        given = {k: v for k, v in locals().items() if k in names.CLIP_OPTIONS}
        self.model = house_clip.CLIP(names.clip_config(given))
        _widen_scales(self.model)
        self.model.temperature = nn.Parameter(self.model.temperature.detach()[0])

    def seats(self) -> list[Seat]:
        return _seats(self.model, names.clip_names(self.model))

    def forward(
        self, text: Tensor, image: Tensor, text_mask: Tensor | None = None, return_loss: bool = False
    ) -> Tensor:
        """[b] scores, or the symmetric cross entropy. Without a mask padding counts, as in the original."""
        mask = torch.ones_like(text, dtype=torch.bool) if text_mask is None else text_mask
        texts, images = self.model.read(text, mask), self.model.look(image)
        if return_loss:
            return self.model.loss(texts, images).total
        return (texts * images).sum(-1) * self.model.temperature.exp()
