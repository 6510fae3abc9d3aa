"""Which decoder draws from which kind of prior. It does not draw."""

from __future__ import annotations

from collections.abc import Callable, Generator

from tessera.config import refuse_order
from tessera.generate.any_order import AnyOrderDecoder
from tessera.generate.decoder import Decoder, DrawingBatch, Drawn, Progress
from tessera.generate.raster import Decode, RasterDecoder
from tessera.generate.weights import compiled
from tessera.models.any_order import AnyOrder
from tessera.models.text_to_image import TextToImage


class ReadingOrder(RasterDecoder):
    """Draws in reading order, and says so where another one is asked for."""

    def steps(self, batch: DrawingBatch) -> Generator[Progress, None, Drawn]:
        refuse_order(batch.sampling, self.model.config)
        return super().steps(batch)


def any_order(model: TextToImage, decode: Decode | None) -> Decoder:
    assert isinstance(model, AnyOrder)
    return AnyOrderDecoder(model, decode)


DECODERS: dict[type[TextToImage], Callable[[TextToImage, Decode | None], Decoder]] = {
    TextToImage: ReadingOrder,
    AnyOrder: any_order,
}
"""By the class of the prior; each is told what a compiler made of `model.decode`."""


def decoder(model: TextToImage, compile: bool) -> Decoder:
    """What draws from this model. With `compile`, steps code by code in reading order are compiled."""
    return DECODERS[type(model)](model, compiled(model) if compile else None)
