"""Judge: what the evaluation of a run says, and its drawings beside their nearest training pictures."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from pathlib import Path

from nicegui import ui

from tessera.errors import ConfigError, TesseraError
from tessera.evaluate.figures import Evaluation, Figure, read
from tessera.evaluate.memorisation import Verdict
from tessera.evaluate.telling import bar, number, told
from tessera.studio.nearest import beside
from tessera.studio.pages.frame import WRONG, button, card, empty, framed, link, picture, small, tell, words
from tessera.studio.runs import Seen
from tessera.studio.studio import Studio

TITLE = "Judge"
EVERY, ROWS = 3.0, 12
KINDS = {"draws anew": "", "leans on its pictures": "warn", "copies": "bad"}
GROUPS = {
    "drawings": "Do the drawings look like the photographs?", "text": "Do they show what was asked for?",
    "caption": "What is the caption worth to the model?",
    "likelihood": "How well does it predict pictures it never saw?",
    "tokenizer": "What do the codes keep of a picture?", "copying": "Does it copy?",
}  # fmt: skip
KEY = (
    "Each figure stands between a floor, which is what pictures without sense get (of copying: what copies get), and "
    "a ceiling, which is what photographs that it never saw get. The dot is this run, the band its 95 % interval."
)
PLACES = (("full", "evaluation"), ("short", "evaluation-short"))
"""Where evaluations lie: the thorough one, and the one that `learn` ends with."""


def page(studio: Studio) -> Callable:
    async def build(run: str = "") -> None:
        about = "Figures with their 95 % intervals, and whether the run copies its pictures."
        with framed("/judge", "Judge", about):
            names = [seen.name for seen in studio.runs() if seen.draws]
            if names:
                Judge(studio, names, run if run in names else names[0])
            else:
                with card():
                    empty("A run can be judged when it has learned to draw.", "/train", "Train one")

    return build


class Judge:
    """The page of one browser tab."""

    def __init__(self, studio: Studio, names: list[str], run: str):
        self.studio = studio
        with card(), ui.element("div").classes("t-row"):
            self.run = (
                ui.select(names, value=run, label="Run", on_change=lambda: self._fill())
                .props("outlined dense")
                .classes("grow")
            )
            self.start = button("Evaluate thoroughly", self._evaluate, primary=True)
            self.status = small("").props('role="status"')
        self.body = ui.element("div").classes("t-stack")
        self.busy = False
        self._fill()
        ui.timer(EVERY, self._watch)

    def _evaluate(self) -> None:
        name = self.run.value
        try:
            run = Seen(name, self.studio.places.run(name))
            pictures = run.pictures()
            if not pictures:
                raise ConfigError("The run does not say which pictures it learned from; evaluate it in a shell.")
            folder = self.studio.places.pictures(pictures)
            words = [str(run.folder), "--data.path", str(folder), "--device", self.studio.config.device]
            self.studio.processes.start("evaluate", name, words, str(folder))
        except WRONG as error:
            return tell(error)
        return self._watch()

    def _watch(self) -> None:
        job = self.studio.processes.running(self.run.value)
        before, self.busy = self.busy, bool(job)
        self.start.set_enabled(not job)
        if job and job.command == "learn":
            self.status.text = "It still learns."
        elif job:
            last = self.studio.processes.tail(self.run.value).strip().rpartition("\n")[2]
            self.status.text = last or "Drawing and measuring; this takes some minutes."
        elif before:
            ended = self.studio.processes.status(self.run.value)
            self.status.text = (
                "" if ended == 0 else self.studio.processes.tail(self.run.value).strip().rpartition("\n")[2]
            )
            self._fill()

    def _fill(self) -> None:
        folder = self.studio.places.run(self.run.value)
        found = evaluation(folder)
        self.body.clear()
        with self.body:
            if found is None:
                with card():
                    empty("This run was not evaluated yet. It takes some minutes, and goes on when the page is closed.")
                return
            kind, place, e = found
            verdict(e.verdict)
            if kind == "short":
                small(
                    f"These are the short figures that training ends with, of {e.pictures['drawn']} drawings. Evaluate "
                    "it thoroughly for narrower intervals."
                )
            nearest(folder / place / "evaluation.html")
            figures(e)
            name = "evaluation" if kind == "full" else "short"
            link(
                "The whole evaluation, as a page of its own", f"/studio/page/{self.run.value}/{name}", 'target="_blank"'
            )


def evaluation(folder: Path) -> tuple[str, str, Evaluation] | None:
    """The most thorough evaluation that a run has, with its kind and place."""
    for kind, place in PLACES:
        try:
            return kind, place, read(folder / place)
        except TesseraError:
            continue
    return None


def verdict(said: Verdict | None) -> None:
    if said:
        with ui.element("div").classes(f"t-verdict {KINDS.get(said.word, '')}"):
            words("b", f"It {said.word}.")
            words("span", said.reason)


def nearest(page: Path) -> None:
    """Drawings with what they are nearest to, the likeliest copies first."""
    rows = beside(page, ROWS)
    if not rows:
        return
    with card("Drawings beside their nearest training pictures"):
        small(
            "From left to right: the drawing; its nearest training picture as the codes keep it, and as it is; the "
            "nearest one by pixels. A number near 0 means a copy, 1 or more a new picture."
        )
        with ui.element("div").classes("t-near"):
            for row in rows:
                with ui.element("figure").style("margin:0"):
                    with ui.element("div").classes("four"):
                        names = (
                            "drawing",
                            "what codes keep of the nearest",
                            "nearest training picture",
                            "nearest by pixels",
                        )
                        for source, about in zip(row.pictures, names, strict=True):
                            picture(source, about)
                    words("figcaption", row.words, "t-cap")


def figures(e: Evaluation) -> None:
    """All figures, by what they are about."""
    small(KEY)
    for group, lines in groupby(e.figures, key=lambda f: f.group):
        with (
            card(GROUPS.get(group, group)),
            ui.element("div").classes("t-scroll"),
            ui.element("table").classes("t-table"),
        ):
            with ui.element("tr"):
                for head in ("", "this run [95 %]", "from floor to ceiling", "floor", "ceiling"):
                    words("th", head).props('scope="col"')
            for figure in lines:
                line(figure)
    for note in e.notes:
        small(note)


def line(f: Figure) -> None:
    with ui.element("tr"):
        with ui.element("td"):
            words("div", f.name)
            small(f.about)
        words("td", told(f.value), "num")
        with ui.element("td"):
            ui.html(bar(f), sanitize=False)  # made of numbers alone
        for other in (f.floor, f.ceiling):
            words("td", number(other.value) if other else "")
