"""Edit: the top of a picture stays, down to a line, and the rest is drawn anew."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable

from nicegui import background_tasks, events, ui

from tessera.serve.orders import Made
from tessera.studio.doctor import thumbnail
from tessera.studio.pages.draw import GREY, source
from tessera.studio.pages.frame import WRONG, button, card, framed, link, picture, said, show, small, tell, untrained
from tessera.studio.studio import Studio

TITLE = "Edit"
COUNT = 4
WHY = (
    "Drag the line: what is above it stays, what is below is drawn anew. A run of this kind draws in reading order, so "
    "it can go on from whole rows at the top and from nothing else; a brush needs a model that draws in any order."
)


def page(studio: Studio) -> Callable:
    async def build(picture: str = "") -> None:
        about = "Keep the top of a picture and let the run draw what comes below."
        with framed("/edit", "Edit", about):
            if names := studio.drawable():
                Edit(studio, names, picture)
            else:
                untrained()

    return build


class Edit:
    """The page of one browser tab."""

    def __init__(self, studio: Studio, names: list[str], name: str):
        self.studio, self.content, self.task = studio, b"", None
        with ui.element("div").classes("t-two"):
            with card("The picture"):
                with ui.element("div").classes("t-easel"):
                    with ui.element("div").classes("t-canvas"):
                        self.image = picture(GREY, "the picture that is edited", "dot")
                        self.veil = ui.element("div").classes("veil")
                    self.line = ui.slider(min=0, max=8, step=1, value=4, on_change=self._veil)
                    self.line.props('vertical snap markers aria-label="Rows that stay"')
                small(WHY)
                with ui.element("div").classes("t-row"):
                    self._upload_button()
                    link("Choose one in the gallery", "/draw")
            with card("What to draw"), ui.element("form").classes("t-form").props("novalidate") as form:
                form.on("submit.prevent", self._go)
                self.prompt = ui.textarea("Prompt").props("outlined autogrow").on("keydown.enter.prevent", self._go)
                self.run = ui.select(names, value=names[0], label="Run", on_change=self._rows).props("outlined")
                self.seed = ui.number("Seed", min=0, max=2**53, precision=0, placeholder="by chance").props(
                    "outlined clearable"
                )
                button("Draw the rest", lambda: None, primary=True).props('type="submit"')
                self.status = small("").props('role="status" aria-live="polite"')
                self.now = ui.element("div").classes("t-now t-pairs")
        self._rows()
        self._from_gallery(name)
        ui.context.client.on_delete(self._stop)

    def _upload_button(self) -> None:
        """A button in place of the library's large panel; the browser opens its dialog itself."""
        upload = ui.upload(on_upload=self._upload, auto_upload=True).props('accept="image/*"').classes("t-hidden")
        press = f"() => getElement({upload.id}).$refs.qRef.pickFiles()"
        button("Upload a square picture", lambda: None).on("click", js_handler=press)

    def _from_gallery(self, name: str) -> None:
        gallery = self.studio.gallery
        kept = gallery.find(name) if name else next(iter(gallery.newest(1)), None)
        if kept is None:
            return
        self.content = gallery.content(kept.name)
        self.prompt.value = kept.prompt
        if kept.run in self.run.options:
            self.run.value = kept.run
        show(self.image, kept.url)

    async def _upload(self, event: events.UploadEventArguments) -> None:
        content = await event.file.read()
        event.sender.reset()  # type: ignore[attr-defined]
        try:
            show(self.image, await asyncio.to_thread(thumbnail, content))
        except WRONG as error:
            return tell(error)
        self.content = content
        return None

    def _rows(self) -> None:
        try:
            grid = self.studio.easel.bench(self.run.value).grid
        except WRONG as error:
            return tell(error)
        self.line.props(f"max={grid} inner-min=1 inner-max={grid - 1}")
        self.grid = grid
        self.line.value = max(1, grid // 2)
        return self._veil()

    def _veil(self) -> None:
        self.veil.style(f"height:{100 - 100 * (self.line.value or 1) / self.grid:.2f}%")

    async def _go(self) -> None:
        if not self.content or not (self.prompt.value or "").strip():
            ui.notify("Choose a picture and say what to draw.", position="top")
            return
        self._stop()
        self.now.clear()
        with self.now:
            tiles = [picture(GREY, f"picture {i + 1}, not drawn yet", "wait") for i in range(COUNT)]
        self.task = background_tasks.create(self._draw(tiles))

    def _stop(self) -> None:
        """Whatever is being drawn is given up."""
        if self.task:
            self.task.cancel()

    async def _draw(self, tiles: list[ui.element]) -> None:
        seed = secrets.randbelow(2**31) if self.seed.value is None else int(self.seed.value)
        self.status.text = "Drawing, row by row …"
        try:
            begin = await asyncio.to_thread(
                self.studio.easel.kept_rows, self.run.value, self.content, int(self.line.value or 1)
            )
            fields = {"prompt": (self.prompt.value or "").strip(), "n": COUNT, "seed": seed}
            async for event in self.studio.easel.draw(self.run.value, begin, **fields):
                tile, own = tiles[event.index], event.picture
                if isinstance(event, Made):
                    show(tile.classes(remove="wait"), self.studio.gallery.keep(own).url)
                else:
                    show(tile, source(own.image))
            self.status.text = "Done. The pictures are in the gallery."
        except WRONG as error:
            self.status.text = said(error)
