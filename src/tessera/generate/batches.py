"""Pictures drawn batch by batch, in smaller batches where memory runs out. It does not know what draws them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator

from tessera.generate.decoder import Progress
from tessera.generate.picture import Picture
from tessera.machine.device import out_of_memory, release


class Batches:
    """Cuts pictures into batches. Where memory runs out the batch is halved, which changes no picture, and drawn again;
    later ones are as small."""

    def __init__(self) -> None:
        self.most = 0  # the batch that memory once forced, if it did

    def drawn(
        self, count: int, batch: int, draw: Callable[[slice], Generator[Progress, None, list[Picture]]]
    ) -> Generator[Progress | list[Picture], None, None]:
        """The steps of each batch, then its pictures; `draw` draws those of a slice of the `count` pictures."""
        first = 0
        batch = min(batch, self.most or batch)
        while first < count:
            own = slice(first, min(first + batch, count))
            size = own.stop - own.start
            try:
                done = yield from draw(own)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error) or size == 1:
                    raise
                batch = self.most = max(1, size // 2)
                warnings.warn(f"Memory ran out at {size} pictures; drawing {batch} at a time.", stacklevel=2)
                error.__traceback__ = None  # it holds what must be freed
                release()
                continue
            yield done
            first = own.stop
