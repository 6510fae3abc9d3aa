"""Train: a run is started, watched, stopped and taken up again. The training is a process of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from nicegui import ui

from tessera.studio.doctor import budget_of
from tessera.studio.pages.charts import Chart
from tessera.studio.pages.frame import WRONG, button, card, empty, framed, small, tell, words
from tessera.studio.pages.watch import Watch
from tessera.studio.runs import Seen
from tessera.studio.studio import Studio

TITLE = "Train"
EVERY = 2.0
"""Seconds between two looks at the runs."""
COMPARED = 6
"""Runs in one chart."""


def page(studio: Studio) -> Callable:
    async def build(pictures: str = "", run: str = "") -> None:
        about = "A run learns from your pictures until its time is over. It goes on when this page is closed."
        with framed("/train", "Train", about):
            Train(studio, pictures, run)

    return build


class Train:
    """The page of one browser tab."""

    def __init__(self, studio: Studio, pictures: str, run: str):
        self.studio, self.watch = studio, None
        with ui.element("div").classes("t-split"):
            with ui.element("div").classes("t-stack"):
                with card("New run"):
                    self._form(pictures)
                with card("Runs"):
                    self.list = ui.element("div").classes("t-list").props('role="group" aria-label="Runs"')
            self.right = ui.element("div").classes("t-stack")
        with card("Several runs, compared") as self.compared:
            self.chosen = ui.select([], value=[], multiple=True, label="Runs", on_change=self._compare).props(
                "outlined use-chips dense"
            )
            small("Only runs that learn from the same pictures can be compared by this number.")
            self.chart = Chart("minutes of training", "held-out loss of several runs")
        self.listed: list[tuple[str, str]] = []
        self.choose(self._first(run, pictures))
        self._refresh()
        ui.timer(EVERY, self._refresh)

    def _first(self, asked: str, pictures: str) -> str:
        """The run to show at first: the one asked for, one at work, or where nothing is to be started the newest."""
        names = [seen.name for seen in self.studio.runs()]
        at_work = [name for name in [*self._started(), *names] if self.studio.processes.running(name)]
        wanted = [asked] if asked in names else at_work or ([] if pictures else names)
        return wanted[0] if wanted else ""

    def _form(self, pictures: str) -> None:
        with ui.element("form").classes("t-form").props("novalidate") as form:
            form.on("submit.prevent", self._start)
            self.pictures = ui.input("Folder of pictures", value=pictures).props("outlined")
            self.name = ui.input("Name of the run", value=self._free(Path(pictures).name) if pictures else "").props(
                "outlined"
            )
            self.budget = ui.input("Time", value="30m", placeholder="90s, 30m, 2h").props("outlined")
            self.edits = ui.checkbox("It can edit pictures, too (any order)", value=False)
            button("Start", lambda: None, primary=True).props('type="submit"')
            small(
                "More time gives better pictures. Stopped early, a run keeps what it has learned and can go on later."
            )

    def _free(self, name: str) -> str:
        """A name that no run has."""
        plain = "".join(c if c.isalnum() or c in "-_." else "-" for c in name).strip("-.")[:60] or "run"
        names = [plain, *(f"{plain}-{i}" for i in range(2, 1000))]
        return next((name for name in names if not (self.studio.places.runs / name).exists()), "")

    def _start(self) -> None:
        try:
            folder = self.studio.places.pictures(self.pictures.value or "")
            name = (self.name.value or "").strip() or self._free(folder.name)
            if self.studio.places.run(name).exists():
                return ui.notify(f"There is a run '{name}' already; choose another name.", position="top")
            more = ["--any-order"] if self.edits.value else []
            learn(self.studio, name, folder, budget_of(self.budget.value or ""), more)
        except WRONG as error:
            return tell(error)
        self.choose(name)
        self._refresh()
        return None

    # What is there.

    def choose(self, name: str) -> None:
        """Show a run."""
        self.right.clear()
        with self.right:
            if name:
                self.watch = Watch(self.studio, name, lambda folder, budget: learn(self.studio, name, folder, budget))
            else:
                self.watch = None
                with card():
                    empty("Start a run to see it learn here.", "/folder", "Choose pictures")

    def _refresh(self) -> None:
        runs = self.studio.runs()
        listed = [(seen.name, self._state(seen)) for seen in runs]
        started = [(name, "starts") for name in self._started() if name not in {n for n, _ in listed}]
        if listed + started != self.listed:
            self.listed = started + listed
            self._list()
            trained = [seen.name for seen in runs if seen.prior.rows]
            self.chosen.set_options(trained, value=[n for n in self.chosen.value if n in trained] or trained[:3])
            self.compared.set_visibility(len(trained) > 1)
        if self.watch:
            self.watch.refresh()

    def _started(self) -> list[str]:
        """Runs whose process was started and has not made its folder yet."""
        return [name for name in self.studio.processes.own if self.studio.processes.running(name)]

    def _state(self, seen: Seen) -> str:
        job = self.studio.processes.running(seen.name)
        return (
            {"learn": "learns", "evaluate": "is judged"}[job.command]
            if job
            else "finished"
            if seen.finished
            else "stopped"
        )

    def _list(self) -> None:
        self.list.clear()
        with self.list:
            for name, state in self.listed:
                with ui.element("button").props('type="button"').on("click", partial(self.choose, name)):
                    words("span", name)
                    words("span", state, f"t-chip end {'on' if state in ('learns', 'starts') else ''}")
            if not self.listed:
                with ui.element("div").classes("item"):
                    small("No runs yet.")

    def _compare(self) -> None:
        with contextlib.suppress(*WRONG):
            runs = [seen for seen in self.studio.runs() if seen.name in self.chosen.value][:COMPARED]
            self.chart.draw([(run.name, minutes(run), True) for run in runs])


def minutes(run: Seen) -> list[tuple[float, float]]:
    """Held-out loss of the prior by time."""
    return [(seconds / 60, loss) for seconds, loss in run.prior.curve("held_loss", "elapsed")]


def learn(studio: Studio, name: str, pictures: Path, budget: str, more: Sequence[str] = ()) -> None:
    """Start to learn with `more` words, or go on with those that it was begun with. Raises ConfigError where the folder
    may not be read, or the run is at work."""
    folder, out = studio.places.pictures(pictures), studio.places.run(name)
    words = [str(folder), "--out", str(out), "--budget", budget, "--device", studio.config.device]
    words += Seen(name, out).begun_with() or more
    studio.processes.start("learn", name, words, str(folder), budget)
