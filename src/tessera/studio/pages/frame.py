"""What all pages have in common: the head, the look, small parts. It knows no page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from nicegui import ui
from nicegui.elements.mixins.text_element import TextElement
from starlette.exceptions import HTTPException

from tessera.errors import TesseraError
from tessera.serve.orders import Refusal

PAGES = (("/folder", "Pictures"), ("/train", "Train"), ("/draw", "Draw"), ("/edit", "Edit"), ("/judge", "Judge"))
WRONG = (TesseraError, HTTPException, Refusal, OSError)
"""What has a sentence for the reader."""
ACCENT, SERIES = "#2f7d6f", ("#3a9c89", "#c9762b", "#5b6ee1", "#b0457b", "#7a8b2f", "#3d8fb5")


@contextmanager
def framed(here: str, title: str, about: str) -> Iterator[None]:
    """The body of a page, below its head."""
    ui.add_head_html('<link rel="stylesheet" href="/studio/theme.css"><meta name="color-scheme" content="light dark">')
    ui.colors(primary=ACCENT, negative="#b3403a")
    ui.query(".nicegui-content").classes("t-content")
    ui.query("html").props('lang="en"')
    with ui.element("header").classes("t-head"), ui.element("div").classes("t-bar"):
        with ui.element("a").props('href="/" aria-label="Tessera Studio"').classes("t-brand"):
            ui.html('<span class="t-mark" aria-hidden="true"><i></i><i></i><i></i><i></i></span>', sanitize=False)
            ui.label("Tessera Studio")
        with ui.element("nav").props('aria-label="Pages"'):
            for path, name in PAGES:
                current = 'aria-current="page"' if path == here else ""
                with ui.element("a").props(f'href="{path}" {current}'):
                    ui.label(name)
    with ui.element("main").classes("t-main"):
        with ui.element("div").classes("t-title"):
            words("h1", title, "t-h1")
            ui.label(about).classes("t-about")
        yield


@contextmanager
def card(title: str = "", classes: str = "") -> Iterator[ui.element]:
    with ui.element("section").classes(f"t-card {classes}") as own:
        if title:
            heading(title)
        yield own


def heading(text: str) -> ui.element:
    return words("h2", text, "t-h2")


def words(tag: str, text: str, classes: str = "") -> ui.element:
    """An element that holds text: whatever letters it has, none of it becomes HTML."""
    return TextElement(tag=tag, text=text).classes(classes)


def small(text: str) -> ui.label:
    return ui.label(text).classes("t-small")


def picture(source: str, about: str, classes: str = "") -> ui.element:
    """An image; its description is text, whatever letters it has."""
    own = ui.element("img").classes(classes)
    own.props.update(src=source, alt=about, loading="lazy")
    return own


def show(own: ui.element, source: str) -> None:
    """Another picture in an image's place."""
    if own.props.get("src") != source:
        own.props["src"] = source
        own.update()


def facts(rows: Sequence[tuple[str, str]]) -> None:
    """Names and values, side by side."""
    with ui.element("dl").classes("t-facts"):
        for name, value in rows:
            with ui.element("div"):
                words("dt", name)
                words("dd", value)


def said(error: BaseException) -> str:
    """What went wrong, in a sentence."""
    return str(error.detail) if isinstance(error, HTTPException) else str(error)


def tell(error: BaseException) -> None:
    ui.notify(said(error), type="negative", position="top", multi_line=True, close_button="Close", timeout=12_000)


def button(text: str, press: Callable, primary: bool = False) -> ui.button:
    own = ui.button(text, on_click=press, color=None).props("no-caps unelevated")
    return own.classes(f"t-button {'t-primary' if primary else ''}")


def link(text: str, address: str, more: str = "") -> ui.element:
    """A link within the Studio."""
    own = words("a", text, "t-link")
    own.props["href"] = address
    return own.props(more) if more else own


def empty(text: str, address: str = "", then: str = "") -> None:
    """Where there is nothing yet: why, and where to go."""
    with ui.element("div").classes("t-empty"):
        ui.label(text)
        if address:
            link(then, address).classes("t-cta")


def untrained() -> None:
    """In place of a page that needs a trained run."""
    with card():
        empty("No run has been trained yet. Begin with a folder of pictures.", "/folder", "Choose pictures")


def clock(seconds: float) -> str:
    """A time for people: 45 s, 12 min, 1 h 05 min."""
    minutes, rest = divmod(round(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def bytes_(count: float) -> str:
    return f"{count / 2**30:.1f} GB" if count >= 2**30 else f"{count / 2**20:.0f} MB"
