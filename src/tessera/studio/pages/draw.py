"""Draw: a prompt becomes pictures, row by row, which stay in the gallery."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable

from nicegui import background_tasks, ui
from PIL import Image

from tessera.evaluate.report import data_url
from tessera.serve.orders import Made
from tessera.studio.gallery import Kept
from tessera.studio.pages.frame import (
    WRONG,
    button,
    card,
    framed,
    heading,
    link,
    picture,
    said,
    show,
    small,
    untrained,
    words,
)
from tessera.studio.studio import Studio

TITLE = "Draw"
COUNTS = (1, 2, 4, 6, 8)
SHELF, MORE = 24, 24
"""Pictures of the gallery that are shown at first, and how many more at a time."""
GREY = "data:image/gif;base64,R0lGODlhAQABAIAAAMjIyP///yH5BAAAAAAALAAAAAABAAEAAAICRAEAOw=="


def page(studio: Studio) -> Callable:
    async def build(prompt: str = "", run: str = "") -> None:
        with framed(
            "/draw", "Draw", "Say what you want to see. A prompt with the same seed always gives the same picture."
        ):
            if names := studio.drawable():
                Draw(studio, names, prompt, run if run in names else names[0])
            else:
                untrained()

    return build


class Draw:
    """The page of one browser tab."""

    def __init__(self, studio: Studio, names: list[str], prompt: str, run: str):
        self.studio, self.names, self.shown = studio, names, SHELF
        self.tasks: list[asyncio.Task] = []
        with ui.element("div").classes("t-split"):
            with ui.element("div").classes("t-stack"), card():
                self._form(prompt, run)
            with ui.element("div").classes("t-stack"):
                with card("Now") as self.now_card:
                    self.status = small("")
                    self.status.props('role="status" aria-live="polite"')
                    self.now = ui.element("div").classes("t-stack")
                self.now_card.set_visibility(False)
                with card("Gallery"):
                    self.gallery = ui.element("div").classes("t-gallery")
                    self.more = button("Show more", self._show_more)
        self._fill()
        self._usual()
        ui.context.client.on_delete(self._stop)

    def _form(self, prompt: str, run: str) -> None:
        with ui.element("form").classes("t-form").props("novalidate") as form:
            form.on("submit.prevent", self._go)
            self.prompt = ui.textarea("What to draw", value=prompt, placeholder="a small red bird on a branch")
            self.prompt.props("outlined autogrow autofocus").on("keydown.enter.prevent", self._go)
            self.run = ui.select(self.names, value=run, label="Run", on_change=self._usual).props("outlined")
            with ui.element("div").classes("t-row"):
                self.count = ui.select(list(COUNTS), value=4, label="Pictures").props("outlined").classes("grow")
                self.seed = (
                    ui.number("Seed", min=0, max=2**53, precision=0, placeholder="by chance")
                    .props("outlined clearable")
                    .classes("grow")
                )
            with ui.expansion("More").props("dense").classes("t-more"), ui.element("div").classes("t-form"):
                self._options()
            with ui.element("div").classes("t-row"):
                button("Draw", lambda: None, primary=True).classes("grow").props('type="submit"')
                self.stop = button("Stop", self._stop)
                self.stop.set_visibility(False)
            small("Enter draws, too.")

    def _options(self) -> None:
        """What a run has its own usual values for, and more."""
        number = lambda label, hint, **bounds: ui.number(label, **bounds).props(f'outlined clearable hint="{hint}"')
        self.guidance = number("Guidance", "how closely the prompt is followed; 1 is off", min=0, max=20, step=0.5)
        self.temperature = number("Temperature", "lower is safer, higher is more varied", min=0, max=4, step=0.05)
        self.top_p = number("Top-p", "below 1 it leaves out unlikely codes", min=0.01, max=1, step=0.05)
        self.best = number("Best of", "draws so many and keeps the best", min=1, max=10, precision=0)
        others = {"": "no other run", **{name: name for name in self.names}}
        self.beside = ui.select(others, value="", label="Side by side with").props("outlined")

    def _usual(self) -> None:
        """The options as the chosen run usually has them."""
        try:
            usual = self.studio.easel.usual(self.run.value)
        except WRONG:
            return
        self.guidance.value, self.temperature.value, self.top_p.value = usual.guidance, usual.temperature, usual.top_p

    # Drawing.

    async def _go(self) -> None:
        if not (self.prompt.value or "").strip():
            ui.notify("Say first what to draw.", position="top")
            return
        chance = secrets.randbelow(2**31)
        fields = {
            "prompt": (self.prompt.value or "").strip(), "n": self.count.value, "guidance": self.guidance.value,
            "temperature": self.temperature.value, "top_p": self.top_p.value,
            "seed": chance if self.seed.value is None else int(self.seed.value),
            "best_of": None if self.best.value is None else int(self.best.value),
        }  # fmt: skip
        self._stop()
        self.now.clear()
        self.now_card.set_visibility(True)
        self.status.text = "Drawing, row by row …"
        self.stop.set_visibility(True)
        runs = dict.fromkeys(name for name in (self.run.value, self.beside.value) if name)
        self.now.classes(replace="t-two" if len(runs) > 1 else "t-stack")
        for run in runs:
            with self.now, ui.element("div").classes("t-form"):
                if len(runs) > 1:
                    heading(run)
                grid = ui.element("div").classes("t-now")
            with grid:
                tiles = [picture(GREY, f"picture {i + 1}, not drawn yet", "wait") for i in range(self.count.value)]
            self.tasks.append(background_tasks.create(self._draw(run, tiles, fields)))

    async def _draw(self, run: str, tiles: list[ui.element], fields: dict[str, object]) -> None:
        try:
            async for event in self.studio.easel.draw(run, None, **fields):
                tile = tiles[event.index]
                if isinstance(event, Made):
                    kept = self.studio.gallery.keep(event.picture)
                    tile.classes(remove="wait")
                    tile.props["alt"] = f"{kept.prompt}, seed {kept.seed}"
                    show(tile, kept.url)
                else:
                    show(tile, source(event.picture.image))
            with self.gallery:
                self._fill()
            cut = "The prompt is longer than this run reads; its end was left out. "
            cut = cut if self.studio.easel.cut(run, str(fields["prompt"])) else ""
            self.status.text = f"Done. {cut}The pictures are in the gallery."
        except WRONG as error:
            self.status.text = f"{run}: {said(error)}"
            for tile in tiles:
                tile.delete()
        finally:
            own = asyncio.current_task()
            self.stop.set_visibility(any(not task.done() for task in self.tasks if task is not own))

    def _stop(self) -> None:
        """What is being drawn is given up, and its rows are free before the next step."""
        for task in self.tasks:
            task.cancel()
        self.tasks.clear()

    # The gallery.

    def _show_more(self) -> None:
        self.shown += MORE
        self._fill()

    def _fill(self) -> None:
        kept = self.studio.gallery.newest(self.shown + 1)
        self.more.set_visibility(len(kept) > self.shown)
        self.gallery.clear()
        with self.gallery:
            for one in kept[: self.shown]:
                self._tile(one)
            if not kept:
                small("Pictures that you draw stay here.").classes("t-all")

    def _tile(self, kept: Kept) -> None:
        with ui.element("figure").classes("t-tile").style("margin:0"):
            with ui.element("button").classes("shot").props('type="button"').on("click", lambda: self._open(kept)):
                picture(kept.url, f"{kept.prompt}, seed {kept.seed}", "dot" if kept.side < 200 else "")
            words("figcaption", kept.prompt, "t-cap")
            small(f"seed {kept.seed} · {kept.run}")

    def _open(self, kept: Kept) -> None:
        with ui.dialog(value=True) as dialog, ui.element("div").classes("t-dialog"):
            picture(kept.url, kept.prompt, "dot" if kept.side < 200 else "")
            ui.label(kept.prompt)
            small(f"seed {kept.seed} · run {kept.run} · {kept.side} × {kept.side}")
            with ui.element("div").classes("t-row"):
                link("Download", f"{kept.url}?download=true", f'download="{kept.name}"')
                button("Again with other seeds", lambda: self._again(kept, dialog), primary=True)
                link("Edit", f"/edit?picture={kept.name}")
                button("Close", dialog.close)
        dialog.on("hide", dialog.delete)

    async def _again(self, kept: Kept, dialog: ui.dialog) -> None:
        dialog.close()
        self.prompt.value, self.seed.value = kept.prompt, None
        if kept.run in self.names:
            self.run.value = kept.run
        await self._go()


def source(image: Image.Image) -> str:
    """An unfinished picture as a data URL."""
    return data_url(image, "PNG", compress_level=1)
