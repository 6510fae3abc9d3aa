"""Edit: a part of a picture stays, and the rest is drawn anew."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable

from nicegui import background_tasks, events, ui

from tessera.config import EditingConfig
from tessera.serve.orders import Made, Sitter
from tessera.studio.doctor import thumbnail
from tessera.studio.pages.brush import LINE, PAINT, Brush, Line
from tessera.studio.pages.draw import GREY, source
from tessera.studio.pages.frame import WRONG, button, card, framed, link, picture, said, show, small, tell, untrained
from tessera.studio.studio import Studio

TITLE = "Edit"
COUNT = 4
VARY = {0.0: "Not at all", 0.1: "A little (a tenth)", 0.3: "Some (three tenths)", 0.6: "Much (six tenths)"}
"""Shares of the codes that are drawn anew beside what is painted."""
AROUND = {0.0: "Nothing", 0.25: "A little (a quarter)", 0.5: "Half of its size", 1.0: "As much again"}
"""How much more is drawn around a picture, as a share of its side."""


def page(studio: Studio) -> Callable:
    async def build(picture: str = "") -> None:
        about = "Keep a part of a picture and let the run draw the rest anew."
        with framed("/edit", "Edit", about):
            ui.add_head_html('<script src="/studio/brush.js"></script>')
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
                        self.line, self.brush = Line(), Brush()
                    self.line.beside()
                self.brush.tools()
                self.why = small(LINE)
                with ui.element("div").classes("t-row"):
                    self._upload_button()
                    link("Choose one in the gallery", "/draw")
            with card("What to draw"), ui.element("form").classes("t-form").props("novalidate") as form:
                form.on("submit.prevent", self._go)
                self.prompt = ui.textarea("Prompt").props("outlined autogrow").on("keydown.enter.prevent", self._go)
                self.run = ui.select(names, value=names[0], label="Run", on_change=self._fit).props("outlined")
                self.seed = ui.number("Seed", min=0, max=2**53, precision=0, placeholder="by chance").props(
                    "outlined clearable"
                )
                with ui.element("div").classes("t-form") as self.more:
                    self.vary = ui.select(VARY, value=0.0, label="Vary the rest").props("outlined")
                    self.around = ui.select(AROUND, value=0.0, label="Draw more around it").props("outlined")
                    self.restore = ui.checkbox("Keep the picture's own pixels", value=True)
                button("Draw the rest", lambda: None, primary=True).props('type="submit"')
                self.status = small("").props('role="status" aria-live="polite"')
                self.now = ui.element("div").classes("t-now t-pairs")
        self._fit()
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

    def _fit(self) -> None:
        """The tools of the chosen run."""
        easel = self.studio.easel
        try:
            grid, brush = easel.bench(self.run.value).grid, easel.any_order(self.run.value)
        except WRONG as error:
            return tell(error)
        self.line.use(grid, not brush)
        self.brush.use(grid, brush)
        self.more.set_visibility(brush)
        self.why.text = PAINT if brush else LINE
        return None

    async def _go(self) -> None:
        if not self.content or not (self.prompt.value or "").strip():
            ui.notify("Choose a picture and say what to draw.", position="top")
            return
        self._stop()
        self.now.clear()
        with self.now:
            tiles = [picture(GREY, f"picture {i + 1}, not drawn yet", "wait") for i in range(COUNT)]
        self.task = background_tasks.create(self._draw(tiles))

    def _sitter(self) -> Sitter:
        """The picture, and what of it is drawn anew."""
        easel, run = self.studio.easel, self.run.value
        if not easel.any_order(run):
            return easel.kept_rows(run, self.content, self.line.rows)
        side = (self.around.value or 0.0) / 2
        config = EditingConfig(
            outpaint=f"{side},{side},{side},{side}" if side else "", vary=self.vary.value or 0.0,
            restore=bool(self.restore.value),
        )  # fmt: skip
        return easel.painted(run, self.content, self.brush.painted, config)

    def _stop(self) -> None:
        """Whatever is being drawn is given up."""
        if self.task:
            self.task.cancel()

    async def _draw(self, tiles: list[ui.element]) -> None:
        seed = secrets.randbelow(2**31) if self.seed.value is None else int(self.seed.value)
        self.status.text = "Drawing …"
        try:
            sitter = await asyncio.to_thread(self._sitter)
            fields = {"prompt": (self.prompt.value or "").strip(), "n": COUNT, "seed": seed}
            async for event in self.studio.easel.draw(self.run.value, sitter, **fields):
                tile, own = tiles[event.index], event.picture
                if isinstance(event, Made):
                    show(tile.classes(remove="wait"), self.studio.gallery.keep(own).url)
                else:
                    show(tile, source(own.image))
            self.status.text = "Done. The pictures are in the gallery."
        except WRONG as error:
            self.status.text = said(error)
