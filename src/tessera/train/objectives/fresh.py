"""A fresh prior, as the settings want it to begin and to read. It knows no data."""

from __future__ import annotations

from tessera.config import TextToImageConfig, TrainConfig
from tessera.models import saved
from tessera.models.text_to_image import TextToImage
from tessera.tokens.image import ImageTokenizer
from tessera.train.objectives.noise import read_as
from tessera.train.objectives.vectors import begin_alike, vectors


def prior(config: TrainConfig, image: ImageTokenizer) -> TextToImage:
    """With weights of its own kind, and whatever it is to read in training in place of codes."""
    assert isinstance(config.model, TextToImageConfig)
    model = saved.network(config.model)
    assert isinstance(model, TextToImage)
    if config.tokens.alike:
        begin_alike(model, vectors(image), config.tokens.alike)
    model.read_as = read_as(config.noise, image)
    return model
