"""DALLE-pytorch's DALLE as a face of this house's prior: its arguments, its joint logits, its drawing.

Where the original's numbers were wrong (its cache, guidance, text completion) these are right.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tessera.compat.dalle_pytorch.image_tokenizers import VAE, DiscreteVAE
from tessera.compat.dalle_pytorch.joint import JointPrior
from tessera.config import SampleConfig
from tessera.errors import ConfigError, DataError
from tessera.generate import captions, raster
from tessera.imports.dalle_pytorch.options import DALLE_OPTIONS, dalle_config
from tessera.models import saved
from tessera.models.text_to_image import TextToImage


class DALLE(JointPrior):
    """The prior with its image tokenizer. Text ids are 0 for padding, as DALLE-pytorch's tokenizers give them."""

    vae: VAE

    def __init__(self, *, dim: int, vae: VAE, num_text_tokens: int = 10000, text_seq_len: int = 256, depth: int,
                 heads: int = 8, dim_head: int = 64, reversible: bool = False, attn_dropout: float = 0.0,
                 ff_dropout: float = 0.0, sparse_attn: bool = False, attn_types: str | Sequence[str] | None = None,
                 loss_img_weight: float = 7, stable: bool = False, sandwich_norm: bool = False,
                 shift_tokens: bool = True, rotary_emb: bool = True, shared_attn_ids: Sequence[int] | None = None,
                 shared_ff_ids: Sequence[int] | None = None, share_input_output_emb: bool = False,
                 optimize_for_inference: bool = False):  # fmt: skip
        super().__init__()
        if not isinstance(vae, VAE):
            raise ConfigError(
                f"vae is a {type(vae).__name__}; DALLE needs a DiscreteVAE, OpenAIDiscreteVAE or VQGanVAE."
            )
        if sparse_attn:
            warnings.warn(
                "sparse_attn does nothing, as in DALLE-pytorch; ask for attn_types=('sparse',) instead.", stacklevel=2
            )
        given = {k: v for k, v in locals().items() if k in DALLE_OPTIONS}
        self.options = given
        config = dalle_config(given, vae.num_tokens, vae.image_size >> vae.num_layers)
        self.vae = vae.requires_grad_(False)
        prior = TextToImage(config)
        self.text_seq_len, self.image_seq_len = text_seq_len, prior.layout.codes
        self.num_text_tokens = num_text_tokens + text_seq_len  # one padding id per position
        self.num_image_tokens = vae.num_tokens
        self.total_tokens = self.num_text_tokens + self.num_image_tokens
        self.total_seq_len = text_seq_len + self.image_seq_len
        self.loss_img_weight, self.stable = loss_img_weight, stable
        self.seat(prior, self.total_tokens)

    def _tokens(self, text: Tensor) -> Tensor:
        """Ids with our padding instead of zeros. The argument is not changed."""
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
        """The loss, or the original's joint logits [b, n, total_tokens]. Tokens that a position cannot predict get the
        smallest float. With a `cache` dict, only positions that are not in the cache are computed and returned."""
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
            hidden = prior.finish(prior.transformer(x, past))
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
        """null + (conditional - null) * cond_scale. Each of the two has its own past in `cache`."""
        kept = ({}, {}) if cache is None else (cache.setdefault("conditional", {}), cache.setdefault("null", {}))
        caches = (None, None) if cache is None else kept
        logits = self(*args, cache=caches[0], **kwargs)
        if cond_scale == 1:
            return logits
        null = self(*args, cache=caches[1], **{**kwargs, "null_cond_prob": 1.0})
        return null + (logits - null) * cond_scale

    def _sampling(self, filter_thres: float, temperature: float, cond_scale: float) -> SampleConfig:
        """The original's filter keeps a share of the joint vocabulary."""
        keep = max(int((1 - filter_thres) * self.total_tokens), 1)
        return SampleConfig(temperature=temperature, top_k=float(keep), guidance=float(cond_scale))

    @torch.no_grad()
    def generate_images(self, text: Tensor, *, clip: Callable[..., Tensor] | None = None, filter_thres: float = 0.5,
                        temperature: float = 1.0,
                        img: Tensor | None = None, num_init_img_tokens: int | None = None, cond_scale: float = 1.0,
                        use_cache: bool = False) -> Any:  # fmt: skip
        """Pictures as `vae.decode` gives them, or (pictures, scores) with a `clip`. A cache is always used, whatever
        `use_cache` says. Noise comes from torch's generator."""
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
        images = self.vae.decode(codes.clone())  # sampling ran in inference mode; a clone may be used in autograd
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

    def _gathered(self) -> DALLE:
        """This model, or a whole copy to draw with if DeepSpeed has sharded its weights."""
        parts = [p for p in nn.Module.parameters(self) if hasattr(p, "ds_id")]
        if not parts:
            return self
        import deepspeed  # type: ignore[import-not-found]

        with deepspeed.zero.GatheredParameters(parts):
            state = {n: v.clone() for n, v in self.state_dict().items()}
        whole = DALLE(vae=self._whole_vae(self.vae), **self.options)
        whole.load_state_dict(state)
        return whole.to(self.joint.weight.device).eval()

    def _whole_vae(self, vae: VAE) -> VAE:
        if isinstance(vae, DiscreteVAE):
            return DiscreteVAE(**vae.options)
        made = object.__new__(type(vae))
        nn.Module.__init__(made)
        made.__dict__.update({k: v for k, v in vae.__dict__.items() if not k.startswith("_")})
        made.network = saved.network(vae.network.config)  # type: ignore[assignment]
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
