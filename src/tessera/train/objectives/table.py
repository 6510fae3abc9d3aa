"""The objectives by the name of the model they train; the names are those of `config.MODELS`."""

from __future__ import annotations

from tessera.train.objectives.any_order import TrainAnyOrder
from tessera.train.objectives.autoencoder import TrainAutoencoder
from tessera.train.objectives.clip import TrainCLIP
from tessera.train.objectives.dvae import TrainDVAE
from tessera.train.objectives.protocol import Objective
from tessera.train.objectives.raster import TrainTextToImage

OBJECTIVES: dict[str, type[Objective]] = {
    "dvae": TrainDVAE,
    "pyramid": TrainAutoencoder,
    "vqgan": TrainAutoencoder,
    "t2i": TrainTextToImage,
    "any_order": TrainAnyOrder,
    "clip": TrainCLIP,
}
