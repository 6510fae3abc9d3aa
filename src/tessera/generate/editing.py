"""A picture edited: what a mask keeps stays, code by code, and the rest is drawn. It does not know HTTP or the command
line."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import fields
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Bool, Int
from PIL import Image
from torch import Tensor

from tessera.config import EditingConfig, Request, SampleConfig, request
from tessera.config.merging import merge
from tessera.data.pictures import to_image
from tessera.errors import ConfigError
from tessera.generate.events import Event
from tessera.generate.given import Given
from tessera.generate.likelihood import surprise
from tessera.generate.masks import Draft, Source, asked, draft, opened, spread
from tessera.generate.orders import chance
from tessera.generate.picture import Picture
from tessera.generate.prompts import Prompts
from tessera.generate.raster import prefix
from tessera.models.any_order import AnyOrder
from tessera.models.text_to_image import TextToImage
from tessera.tokens.image import ImageTokenizer


class Drawer(Protocol):
    """What draws: a Pipeline."""

    model: TextToImage
    image: ImageTokenizer
    prompts: Prompts

    def tokens(self, prompts: Sequence[str], truncate: bool = False) -> Int[Tensor, "B T"]: ...
    def drawn(self, request: Request, given: Given, partial: bool) -> Generator[Event, None, None]: ...


def wanted(prompt: str, usual: SampleConfig, options: dict[str, object]) -> tuple[Request, EditingConfig]:
    """What to draw and what of the picture to draw anew; `options` are fields of both and of SampleConfig. Raises
    ConfigError that names a wrong one."""
    own = {f.name for f in fields(EditingConfig)}
    config = merge(EditingConfig(), {name: value for name, value in options.items() if name in own})
    wish = request(prompt, usual, **{name: value for name, value in options.items() if name not in own})
    if wish.prime:
        raise ConfigError("prime begins a picture with the rows of another; an edit keeps what its mask leaves.")
    return wish, config


def drafted(drawer: Drawer, image: Source, mask: Source | None, config: EditingConfig) -> Draft:
    """A picture and what of it is drawn anew, as this model draws: see `masks.draft`."""
    config.check()
    own = drawer.image
    return draft(opened(image, own.channels, "image"), asked(image, mask), config.sides(), own.pixels, own.grid)


def edited(
    drawer: Drawer, own: Draft, wish: Request, config: EditingConfig, partial: bool = False
) -> Generator[Event, None, None]:
    """What happens while pictures are drawn that keep a part of another. What the model cannot do is said at once,
    before the first event."""
    drawer.prompts.accept(wish)
    refuse_edit(drawer.model, own, config)
    given, drafts = laid_out(drawer, own, wish, config)
    if not given.mask.any():
        warnings.warn("Nothing is to be drawn anew: the picture comes back as it is.", stacklevel=2)
    return _events(drawer, wish, given, drafts if config.restore else (), partial)


def refuse_edit(model: TextToImage, own: Draft, config: EditingConfig) -> None:
    """Raise ConfigError where a model cannot keep what is kept."""
    if not isinstance(model, AnyOrder):
        drawn = own.drawn.index_fill(0, torch.zeros(1, dtype=torch.long), True) if config.vary else own.drawn
        prefix(drawn, drawn[None].long())


def _events(
    drawer: Drawer, wish: Request, given: Given, drafts: Sequence[Draft], partial: bool
) -> Generator[Event, None, None]:
    with closing(drawer.drawn(wish, given, partial)) as events:
        for event in events:
            if isinstance(event, Picture) and drafts:
                own = drafts[(event.seed - wish.seed) % len(drafts)]
                event = dataclasses.replace(event, image=restored(event.image, own))
            yield event


def restored(drawn: Image.Image, own: Draft) -> Image.Image:
    """A drawn picture with the own pixels of the edited one where nothing was asked for."""
    pixels = torch.from_numpy(np.array(drawn)).float() / 255
    return to_image(own.restored(pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)))


def laid_out(drawer: Drawer, own: Draft, wish: Request, config: EditingConfig) -> tuple[Given, list[Draft]]:
    """Codes and masks, in one row for all pictures or in one for each, and the pixels that each of the rows keeps."""
    with torch.inference_mode():
        known = drawer.image.encode(own.pixels[None].float() / 255)
    masks = [own.drawn | chosen for chosen in varied(drawer, own, known, wish, config)]
    drafts = [own._replace(drawn=mask, anew=own.anew | spread(mask & ~own.drawn, own.anew.shape[1])) for mask in masks]
    return Given(known.expand(len(masks), -1), torch.stack(masks).to(known.device)), drafts


def vary_count(share: float, total: int) -> int:
    """How many of `total` codes a share is: at least one, unless it is nothing."""
    return max(round(share * total), int(share > 0))


def varied(
    drawer: Drawer, own: Draft, known: Int[Tensor, "1 N"], wish: Request, config: EditingConfig
) -> list[Bool[Tensor, " N"]]:
    """The codes that `vary` draws anew beside those of the mask: the same for all pictures, or others for each."""
    count = min(vary_count(config.vary, len(own.drawn)), int((~own.drawn).sum()))
    if not count:
        return [torch.zeros_like(own.drawn)]
    if config.vary_first == "random":
        seeds = range(wish.seed, wish.seed + wish.count)
        scores = [torch.rand(len(own.drawn), generator=chance(seed)) for seed in seeds]
    else:
        tokens = drawer.tokens([wish.prompt], wish.truncate)
        scores = [surprise(drawer.model, tokens, known)]
    found = []
    for score in scores:
        first = score.masked_fill(own.drawn, -torch.inf).topk(count).indices
        found.append(torch.zeros_like(own.drawn).index_fill(0, first, True))
    return found
