"""Pictures: a folder is chosen, and the doctor says what is in it."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlencode

from nicegui import ui

from tessera.studio.doctor import Report, budget_of, look, plan, samples
from tessera.studio.pages.frame import WRONG, button, card, facts, framed, link, picture, small, tell, words
from tessera.studio.studio import Studio

TITLE = "Pictures"
SHOWN, REASONS = 12, 8
"""Pictures with their captions, and reasons for which some were left out."""


def page(studio: Studio) -> Callable:
    async def build(path: str = "") -> None:
        about = "Choose a folder of pictures with captions: a text file of the same name beside each, or a table."
        with framed("/folder", "Pictures", about):
            Folder(studio, path)

    return build


class Folder:
    """The page of one browser tab."""

    def __init__(self, studio: Studio, path: str):
        self.studio = studio
        with ui.element("div").classes("t-split"):
            with ui.element("div").classes("t-stack"), card("Folder"):
                self.list = ui.element("div").classes("t-form")
                self.look = button("Look at these pictures", self._look, primary=True)
                small("Every picture is opened once; nothing is changed or copied.")
            self.found = ui.element("div").classes("t-stack")
        try:
            self.here = studio.places.pictures(path) if path else studio.places.roots[0]
        except WRONG as error:
            self.here = studio.places.roots[0]
            tell(error)
        self._browse()

    def _open(self, folder: Path) -> None:
        self.here = folder
        self._browse()

    def _browse(self) -> None:
        places = self.studio.places
        try:
            inner, above = places.folders(self.here), places.parent(self.here)
        except WRONG as error:
            return tell(error)
        others = [root for root in places.roots if root != self.here and not above]
        self.list.clear()
        with self.list:
            ui.label(self._trail()).classes("t-path").tooltip(str(self.here))
            with ui.element("div").classes("t-list").props('role="group" aria-label="Folders"'):
                if above:
                    self._entry("↑  up", above)
                for folder in others:
                    self._entry(str(folder), folder)
                for folder in inner:
                    self._entry(folder.name, folder)
                if not inner:
                    with ui.element("div").classes("item"):
                        small("No folders in here.")
        return None

    def _entry(self, name: str, folder: Path) -> None:
        with ui.element("button").props('type="button"').on("click", lambda: self._open(folder)):
            ui.label(name)

    def _trail(self) -> str:
        """Where we are, from the folder that the Studio was started with."""
        root = next(root for root in self.studio.places.roots if self.here.is_relative_to(root))
        return " / ".join((root.name or str(root), *self.here.relative_to(root).parts))

    async def _look(self) -> None:
        folder = self.here
        self.found.clear()
        with self.found, card():
            ui.label("Looking at every picture …").props('role="status"')
            ui.linear_progress(show_value=False).props("indeterminate rounded")
        self.look.disable()
        try:
            report = await look(folder)
            shown = await asyncio.to_thread(samples, self.studio.places, folder, SHOWN)
        except WRONG as error:
            self.found.clear()
            with self.found, card("These pictures cannot be used yet"):
                ui.label(str(error))
            return
        finally:
            self.look.enable()
        self.found.clear()
        with self.found:
            self._summary(folder, report)
            with card("Some of them"), ui.element("div").classes("t-gallery"):
                for sample in shown:
                    with ui.element("figure").classes("t-tile").style("margin:0"):
                        picture(sample.source, sample.captions[0])
                        words("figcaption", sample.captions[0], "t-cap")
            left_out(report)
            Plan(self.studio, folder)

    def _summary(self, folder: Path, report: Report) -> None:
        sides = report.sides
        counts = [pair["captions"] for pair in report.pairs]
        with card(f"{folder.name}: {len(report.pairs):,} pictures can be learned from"):
            facts([
                ("left out", f"{len(report.skipped):,}"),
                ("shorter side", f"{sides[0]} – {sides[-1]} px" if sides[0] < sides[-1] else f"{sides[0]} px"),
                ("median side", f"{statistics.median(sides):.0f} px"),
                ("captions each", f"{statistics.mean(counts):.1f}"),
                ("longest caption", f"{report.settings['longest_caption_words']} words"),
                ("duplicates", f"{sum(len(group) - 1 for group in report.duplicates):,}"),
                ("layout", report.layout),
            ])  # fmt: skip
            if len(report.pairs) < 200:
                small("A few hundred pictures are the least from which something is learned; thousands are better.")


def left_out(report: Report) -> None:
    """What is not learned from, and why."""
    if not report.skipped and not report.duplicates:
        return
    with card("Left out, and seen twice"):
        for reason, count in report.reasons[:REASONS]:
            first = next(skip["path"] for skip in report.skipped if skip["reason"] == reason)
            more = f" and {count - 1:,} more" if count > 1 else ""
            ui.label(f"{first}{more}: {reason}")
        for group in report.duplicates[:REASONS]:
            ui.label(f"The same picture: {', '.join(group[:4])}{' …' if len(group) > 4 else ''}")


class Plan:
    """What learn would choose, and the way to the training."""

    def __init__(self, studio: Studio, folder: Path):
        self.studio, self.folder = studio, folder
        with card("Train on them"):
            with ui.element("div").classes("t-row"):
                self.budget = ui.input("Time for everything", value="30m").props("outlined dense").classes("grow")
                button("What would be chosen?", self._ask)
                query = urlencode({"pictures": studio.places.short(folder)})
                link("Go to Train", f"/train?{query}").classes("t-cta")
            self.table = ui.element("div").classes("t-scroll")

    async def _ask(self) -> None:
        self.table.clear()
        with self.table:
            ui.label("Measuring this machine …").props('role="status"')
        try:
            budget = budget_of(self.budget.value or "")
            rows = await plan(self.folder, budget)
        except WRONG as error:
            self.table.clear()
            return tell(error)
        self.table.clear()
        with self.table:
            small(
                f"It takes {budget} in all: a quarter for the image tokenizer, six tenths for the prior, the rest to "
                "encode, measure and report."
            )
            with ui.element("table").classes("t-table"):
                for name, value, why in rows:
                    with ui.element("tr"):
                        words("td", name)
                        words("td", value, "num")
                        words("td", why)
        return None
