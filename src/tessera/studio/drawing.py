"""Drawing for a page: the same jobs that the server's interface makes, with a picture after every row. It knows no
pages."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from PIL import Image
from pydantic import ValidationError

from tessera.config import EditingConfig, Limits, SampleConfig
from tessera.errors import ConfigError
from tessera.generate.editing import refuse_edit
from tessera.models.any_order import AnyOrder
from tessera.serve.bench import Bench
from tessera.serve.errors import Refused
from tessera.serve.jobs import job, told
from tessera.serve.orders import Made, Refusal, Shown, Sitter
from tessera.serve.pictures import drafted
from tessera.serve.schema import Generation, wrong_fields
from tessera.serve.worker import Worker

CLIENT = "studio"


@dataclass(frozen=True)
class Easel:
    """What draws."""

    worker: Worker
    limits: Limits

    @property
    def benches(self) -> dict[str, Bench]:
        return dict(self.worker.benches)

    def usual(self, run: str) -> SampleConfig:
        """How a run draws where nothing else is said."""
        return self.bench(run).pipeline.sampling

    def bench(self, run: str) -> Bench:
        """Raises ConfigError for a run that is not drawn from."""
        if run not in self.worker.benches:
            raise ConfigError(f"{run or 'This run'} cannot be drawn from yet; it needs its first checkpoint.")
        return self.worker.benches[run]

    def cut(self, run: str, prompt: str) -> bool:
        """Whether a prompt is longer than a run reads; then its end is left out."""
        prompts = self.bench(run).pipeline.prompts
        return len(prompts.encode(prompt)) > prompts.length

    async def draw(self, run: str, sitter: Sitter | None = None, **fields: object) -> AsyncIterator[Shown | Made]:
        """Unfinished and finished pictures, as they come. Raises Refused with a sentence for what cannot be drawn. Left
        early, its rows are free before the next step."""
        bench = self.bench(run)
        given = {name: value for name, value in fields.items() if value is not None}
        made = job("image_generation", _wanted({"truncate": True, **given}), bench, CLIENT, self.limits, sitter)
        made.order.shows = 0 if made.order.keep else bench.grid - 1
        try:
            self.worker.submit(bench.name, made.order)
            async for event in told(made):
                if event is not None:
                    yield event
        except Refusal as full:
            raise Refused(429, str(full)) from full
        finally:
            self.worker.cancel(made.order)

    def any_order(self, run: str) -> bool:
        """Whether a run can draw any part of a picture anew."""
        return isinstance(self.bench(run).pipeline.model, AnyOrder)

    def kept_rows(self, run: str, picture: bytes, rows: int) -> Sitter:
        """A picture of which the first rows of codes stay. Raises TesseraError for what is not a square picture."""
        mask = mask_of(_side(picture, self.limits.max_upload_pixels), rows, self.bench(run).grid)
        return self.sitter(run, picture, mask, EditingConfig())

    def painted(self, run: str, picture: bytes, squares: Sequence[int], config: EditingConfig) -> Sitter:
        """A picture of which painted squares are drawn anew, and what `config` asks for beside them."""
        mask = mask_of_squares(_side(picture, self.limits.max_upload_pixels), squares, self.bench(run).grid)
        return self.sitter(run, picture, mask, config)

    def sitter(self, run: str, picture: bytes, mask: bytes | None, config: EditingConfig) -> Sitter:
        """A picture of which what a mask makes transparent is drawn anew. Raises TesseraError for what cannot be."""
        bench = self.bench(run)
        image, most = bench.pipeline.image, self.limits.max_upload_pixels
        own = drafted(picture, mask, config, image.pixels, image.channels, image.grid, most)
        refuse_edit(bench.pipeline.model, own, config)
        return Sitter(own, config)


def mask_of(side: int, rows: int, grid: int) -> bytes:
    """A mask as the server's edits take it: opaque above a line, transparent below."""
    mask, file = Image.new("RGBA", (side, side)), io.BytesIO()
    mask.paste((0, 0, 0, 255), (0, 0, side, side * rows // grid))
    mask.save(file, "PNG")
    return file.getvalue()


def mask_of_squares(side: int, squares: Sequence[int], grid: int) -> bytes:
    """The same for painted squares: transparent in them alone."""
    mask, file = Image.new("RGBA", (side, side), (0, 0, 0, 255)), io.BytesIO()
    for square in squares:
        row, column = divmod(square, grid)
        left, top = (-(-place * side // grid) for place in (column, row))
        right, bottom = ((place + 1) * side // grid for place in (column, row))
        mask.paste((0, 0, 0, 0), (left, top, max(left + 1, right), max(top + 1, bottom)))
    mask.save(file, "PNG")
    return file.getvalue()


def _side(picture: bytes, most: int) -> int:
    """The width of a picture by its head; 1 for what `beginning` refuses."""
    try:
        with Image.open(io.BytesIO(picture)) as head:
            return head.size[0] if head.size[0] * head.size[1] <= most else 1
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return 1


def _wanted(fields: dict[str, object]) -> Generation:
    try:
        return Generation.model_validate(fields)
    except ValidationError as error:
        raise wrong_fields([dict(e) for e in error.errors(include_url=False)], set(Generation.model_fields)) from error
