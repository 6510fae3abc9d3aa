"""The command that draws parts of a picture anew."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tessera.cli.arguments import options, run_of
from tessera.cli.generate import put, writing
from tessera.cli.screen import drawing, say
from tessera.cli.stopping import stoppable
from tessera.config import DrawingConfig, EditingConfig, Request, SampleConfig
from tessera.config.ranges import Batch, Pictures, Seed
from tessera.files.claim import claim
from tessera.files.own import sweep
from tessera.generate.defaults import find, usual

if TYPE_CHECKING:
    from tessera.generate.masks import Draft
    from tessera.generate.picture import Picture
    from tessera.generate.pipeline import Pipeline


@dataclass(frozen=True, kw_only=True)
class EditConfig(EditingConfig):
    """Draw a part of a picture anew. Any part needs a run of a prior of any order (any-*); others keep the first codes,
    such as whole rows at the top."""

    run: str
    """The run folder."""
    image: str
    """The picture."""
    prompt: str
    """What the whole picture shows, in quotes."""
    mask: str = ""
    """A picture of the same size: what is transparent in it is drawn anew, or what is white where nothing in it is
    transparent. Without it, the transparent parts of IMAGE are."""
    count: Pictures = 4
    """Pictures to draw."""
    seed: Seed = 0
    """Seed of the first picture; the next ones have seed + 1, seed + 2, ..."""
    sampling: SampleConfig = field(default_factory=SampleConfig)
    batch: Batch = 8
    """Pictures to draw at a time; the pictures stay the same."""
    truncate: bool = False
    """Cut a prompt that is longer than the model's text, with a warning, instead of refusing it."""
    out: str = "edits"
    """Folder for the pictures; each prompt gets one of its own in it."""
    weights: Literal["float32", "bf16", "int8"] = "float32"
    """Bits of each weight while drawing."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""


def edit(args: list[str]) -> None:
    """RUN IMAGE "PROMPT"  Draw a part of a picture anew: a mask, beyond its sides, or here and there."""
    config = options(EditConfig, args, "edit", usual={"sampling": usual(run_of(args))})
    out, made = Path(config.out), list["Picture"]()

    def kept() -> str:
        return f"stopped. Pictures kept in {out}: {len(made)}."

    with stoppable(kept):
        from tessera.generate.editing import drafted
        from tessera.generate.pipeline import Pipeline

        asked = requested(config)
        ready(config)
        pipeline = Pipeline.load(config.run, config.device, config.weights)
        own = drafted(pipeline, config.image, config.mask or None, config)
        draw(pipeline, own, asked, config, made)
        say(f"{put(out, [before(own, config), *made])}: the picture, grey where it is drawn anew, and what was drawn")


def requested(config: EditConfig) -> Request:
    """The checked request."""
    shared = {f.name: getattr(config, f.name) for f in dataclasses.fields(DrawingConfig) if hasattr(config, f.name)}
    request = Request(config.prompt, **shared)
    request.check()
    return request


def ready(config: EditConfig) -> None:
    """Refuse what cannot be drawn or written before the run's weights are read."""
    from tessera.generate.masks import asked, opened
    from tessera.generate.sheet import began
    from tessera.machine.device import choose_device

    find(config.run)
    choose_device(config.device)
    opened(config.image, 3, "image")
    asked(config.image, config.mask or None)
    claim(Path(config.out), "pictures", began)
    sweep(Path(config.out))


def draw(pipeline: Pipeline, own: Draft, asked: Request, config: EditConfig, made: list[Picture]) -> None:
    """Draw the pictures into the folder of their prompt, and add each to `made` as soon as it is finished."""
    from tessera.generate.editing import edited
    from tessera.generate.events import heard
    from tessera.generate.sheet import keep_others, prompt_folder

    events = edited(pipeline, own, asked, config)
    with writing(config.out):
        folder = prompt_folder(Path(config.out), asked.prompt)
    keep_others(folder, range(asked.seed, asked.seed + asked.count))
    with drawing(asked.prompt) as on_step:
        for picture in heard(events, on_step):
            path = folder / f"{picture.seed}.png"
            with writing(path):
                picture.save(path)
            made.append(picture)
    say(f"{folder}: {len(made)} pictures, seeds {asked.seed} to {asked.seed + asked.count - 1}")


def before(own: Draft, config: EditConfig) -> Picture:
    """What was edited, for the sheet."""
    from tessera.generate.picture import Picture

    return Picture(own.before(), "before", config.seed, config.run)
