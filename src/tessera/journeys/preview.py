"""Sample pictures during training: where `train` and `generate` meet, as a callable that the loop is handed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tessera.config import SampleConfig, kind_of
from tessera.data.pictures import grid_image
from tessera.errors import CheckpointError
from tessera.evaluate import plots
from tessera.files.atomic import whole
from tessera.generate.pipeline import Pipeline
from tessera.generate.sheet import contact_sheet
from tessera.store.run import Run
from tessera.train.objectives.autoencoder import TrainAutoencoder
from tessera.train.objectives.dvae import TrainDVAE
from tessera.train.objectives.protocol import Objective, floats
from tessera.train.objectives.raster import TrainTextToImage

COUNT = 8


def preview(objective: Objective, path: Path) -> str:
    """Write a PNG: reconstructions below their originals, or drawings with their held-out captions; and loss.png."""
    plots.save_plot(Run(objective.config.out))
    return PREVIEWS[kind_of(objective.config.model)](objective, path)


def reconstructions(objective: TrainDVAE | TrainAutoencoder, path: Path) -> str:
    pairs, source = (objective.held, objective.held_source) if objective.held else (objective.pairs, objective.source)
    originals = torch.stack([source.plain(i)[1] for i in range(min(COUNT, len(pairs)))])
    pixels = floats(originals.to(next(objective.model.parameters()).device))
    again = objective.model.decode(objective.model.encode(pixels))
    with whole(path) as fresh:
        grid_image(torch.cat((pixels, again)), len(pixels)).save(fresh)
    return "above: held-out pictures; below: what their codes keep of them"


def drawings(objective: TrainTextToImage, path: Path) -> str:
    pairs = (objective.held or objective.pairs)[:COUNT]
    pipeline = Pipeline(objective.model, objective.text, objective.image)
    try:
        drawn = pipeline.draw([p.captions[0] for p in pairs], list(range(len(pairs))), SampleConfig(), truncate=True)
    except CheckpointError:  # weights that are not numbers: the loop sees to them
        return ""
    with whole(path) as fresh:
        contact_sheet(drawn).save(fresh)
    return " | ".join(p.prompt for p in drawn)


PREVIEWS: dict[str, Callable[[Any, Path], str]] = {
    "dvae": reconstructions,
    "pyramid": reconstructions,
    "vqgan": reconstructions,
    "t2i": drawings,
    "any_order": drawings,
    "clip": lambda objective, path: "",
}
"""By kind of model. A judge has nothing to show."""
