"""One run on the page Train: how far it is, its curves, its pictures over time, its log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
from nicegui import ui

from tessera.config import seconds
from tessera.errors import REQUEUE, ConfigError
from tessera.studio.doctor import budget_of
from tessera.studio.pages.charts import Chart
from tessera.studio.pages.frame import (
    WRONG,
    button,
    bytes_,
    card,
    clock,
    facts,
    link,
    picture,
    show,
    small,
    tell,
    words,
)
from tessera.studio.processes import Job
from tessera.studio.runs import Seen, Stage
from tessera.studio.studio import Studio

STAGES = {"tokenizer": "Image tokenizer: learns what pictures are made of", "prior": "Prior: learns what words mean"}


class Watch:
    """A run, looked at again and again."""

    def __init__(self, studio: Studio, name: str, again: Callable[[Path, str], None]):
        self.studio, self.name, self.again = studio, name, again
        self.run = Seen(name, studio.places.run(name))
        self.seen: object = None
        with card() as own:
            own.props(f'aria-label="Run {name}"')
            self.head = ui.element("div").classes("t-form")
        with card("How well it predicts pictures it never saw"):
            small(
                "Lower is better. The thin line is what it learns from, the thick one what it never saw; when the "
                "thick one rises, it learns by heart."
            )
            self.charts, self.parts = {}, {}
            for stage, about in STAGES.items():
                with ui.element("div") as self.parts[stage]:
                    words("h3", about, "t-small")
                    self.charts[stage] = Chart("step", about)
        self.over_time = OverTime(self.run)
        with card("Log"):
            self.log = words("pre", "", "t-log").props('tabindex="0" aria-label="Log"')

    def refresh(self) -> None:
        """Read the folder again; only what changed is sent."""
        job, tokenizer, prior = self.studio.processes.running(self.name), self.run.tokenizer, self.run.prior
        now = (job, len(tokenizer.rows), len(prior.rows), self.run.finished, job and int(time.time()) // 2)
        if now == self.seen:
            return
        self.seen = now
        self._head(job, tokenizer, prior)
        for name, stage in (("tokenizer", tokenizer), ("prior", prior)):
            lines = [("learned", stage.curve("loss"), False), ("never seen", stage.curve("held_loss"), True)]
            self.charts[name].draw(lines)
            self.parts[name].set_visibility(bool(stage.rows) or name == "tokenizer")
        self.over_time.refresh(prior, tokenizer)
        text = self.studio.processes.tail(self.name) or "This run was started in a shell; its log is there."
        self.log.set_text(text.strip())  # type: ignore[attr-defined]

    def _head(self, job: Job | None, tokenizer: Stage, prior: Stage) -> None:
        stage = prior if prior.rows else tokenizer
        self.head.clear()
        with self.head:
            with ui.element("div").classes("t-row"):
                words("h2", self.name, "t-h2").style("margin:0")
                words("span", self._state(job, tokenizer, prior), f"t-chip {'on' if job else ''}")
            left = left_of(job, tokenizer, prior)
            if job and left is not None:
                self._progress(job, left)
            facts(list(self._facts(job, stage, tokenizer, left)))
            if (best := prior.best) and not self.run.finished:
                small(
                    f"Best if you stop now: what it knew at step {best[0]:,}, with a never-seen loss of {best[1]:.3f}."
                )
            with ui.element("div").classes("t-row"):
                self._buttons(job)

    def _state(self, job: Job | None, tokenizer: Stage, prior: Stage) -> str:
        if job and job.command == "evaluate":
            return "is judged"
        if job:
            return "learns words" if prior.rows else "learns pictures" if tokenizer.rows else "looks at the pictures"
        if self.run.finished:
            return "finished"
        status = self.studio.processes.status(self.name)
        return "stopped" if status in (None, 0, REQUEUE) else "ended with an error: see the log"

    def _progress(self, job: Job, left: float) -> None:
        share = 100 * (1 - max(0.0, left) / seconds(job.budget))
        with ui.element("div").classes("t-progress") as own:
            own.props(f'role="progressbar" aria-valuenow="{share:.0f}" aria-label="time used, in percent"')
            ui.element("i").style(f"width:{share:.1f}%")

    def _facts(self, job: Job | None, stage: Stage, tokenizer: Stage, left: float | None) -> Iterator[tuple[str, str]]:
        if left is not None:
            yield "time left", clock(left) if left > 0 else "a moment"
        if job and job.command == "learn" and (own := stage.last("left_s")):  # an earlier training ended with 0
            yield "left in this stage", clock(own)
        for name, key, form in (
            ("step", "step", "{:,.0f}"),
            ("loss", "loss", "{:.3f}"),
            ("never-seen loss", "held_loss", "{:.3f}"),
            ("pictures a second", "samples_per_s", "{:,.0f}"),
        ):
            if (value := stage.last(key)) is not None:
                yield name, form.format(value)
        used = tokenizer.last("held_perplexity") or tokenizer.last("codes_used")
        if used is not None:
            yield "codes in use", f"about {used:,.0f}"
        if job and (memory := self.studio.processes.memory(self.name)):
            yield "memory", f"{bytes_(memory)} of {bytes_(psutil.virtual_memory().total)}"

    def _buttons(self, job: Job | None) -> None:
        if job:
            button("Stop and save", self._stop)
        else:
            before = self.studio.processes.job(self.name)
            self.budget = (
                ui.input("Time in all", value=before.budget if before and before.budget else "30m")
                .props("outlined dense")
                .style("width:9rem")
            )
            button("Train longer" if self.run.finished else "Go on", self._go_on)
        if self.run.draws:
            link("Draw from it", f"/draw?run={self.name}")
            link("Judge it", f"/judge?run={self.name}")
        if self.run.finished:
            link("Report", f"/studio/page/{self.name}/report", 'target="_blank"')

    def _stop(self) -> None:
        self.studio.processes.stop(self.name)
        ui.notify("It saves what it has and stops.", position="top")

    def _go_on(self) -> None:
        before = self.studio.processes.job(self.name)
        try:
            pictures = before.pictures if before and before.pictures else self.run.pictures()
            if not pictures:
                raise ConfigError("The run does not say which pictures it learned from; go on in a shell.")
            self.again(Path(pictures), budget_of(self.budget.value or ""))
        except WRONG as error:
            tell(error)
        self.seen = None
        self.refresh()


def left_of(job: Job | None, tokenizer: Stage, prior: Stage) -> float | None:
    """Seconds until a run is done: of a first call what its time leaves, of a later one what training has left."""
    if job is None or not job.budget:
        return None
    trained = sum(stage.last("elapsed") or 0.0 for stage in (tokenizer, prior))
    return seconds(job.budget) - max(time.time() - job.began, trained)


class OverTime:
    """The same captions, drawn again and again while it learned."""

    def __init__(self, run: Seen):
        self.run, self.found = run, []
        with card("The same captions over time") as self.card:
            self.about = small("")
            self.picture = picture("", "previews of fixed captions", "t-wide")
            self.slider = ui.slider(min=0, max=1, step=1, value=0, on_change=self._show).props(
                'label aria-label="Time"'
            )
        self.card.set_visibility(False)

    def refresh(self, prior: Stage, tokenizer: Stage) -> None:
        """Those of the prior, or until it has some, what the image tokenizer keeps of pictures."""
        stage, found = ("prior", prior.previews())
        if not found:
            stage, found = ("tokenizer", tokenizer.previews())
        if (stage, found) == self.found or not found:
            return
        last = not self.found or self.slider.value == len(self.found[1]) - 1
        self.found = (stage, found)
        self.card.set_visibility(True)
        self.slider.props(f"max={max(1, len(found) - 1)}")
        self.slider.set_visibility(len(found) > 1)
        if last:
            self.slider.value = len(found) - 1
        self._show()

    def _show(self) -> None:
        stage, found = self.found
        step, path = found[min(int(self.slider.value or 0), len(found) - 1)]
        what = "held-out captions, drawn" if stage == "prior" else "above held-out pictures, below what its codes keep"
        self.about.text = f"Step {step:,}: {what}."
        show(self.picture, f"/studio/preview/{self.run.name}/{stage}/{path.name}")
