"""Curves on a page, drawn in the browser by ECharts, which the server sends. They know no runs."""

from __future__ import annotations

from collections.abc import Sequence

from nicegui import ui

from tessera.studio.pages.frame import SERIES

Points = Sequence[tuple[float, float]]
GREY = "#8a8f98"


class Chart:
    """Lines that may get longer."""

    def __init__(self, across: str, about: str, height: str = "240px"):
        axis = {
            "axisLabel": {"color": GREY},
            "nameTextStyle": {"color": GREY},
            "axisLine": {"lineStyle": {"color": GREY}},
        }
        bare = {"splitLine": {"show": False}}
        split = {"splitLine": {"lineStyle": {"color": "rgba(138,143,152,.22)"}}}
        self.own = ui.echart({
            "animation": False,
            "grid": {"left": 48, "right": 16, "top": 34, "bottom": 40},
            "legend": {"top": 0, "left": 0, "textStyle": {"color": GREY}, "itemWidth": 16, "icon": "roundRect"},
            "tooltip": {"trigger": "axis", "confine": True, "renderMode": "richText"},
            "xAxis": {"type": "value", "name": across, "nameLocation": "middle", "nameGap": 26, **axis, **bare},
            "yAxis": {"type": "value", "scale": True, **axis, **split},
            "series": [],
        }).style(f"height:{height};width:100%").props(f'role="img" aria-label="{about}"')  # fmt: skip
        self.drawn: object = None

    def draw(self, lines: Sequence[tuple[str, Points, bool]]) -> None:
        """Lines by name; those that are not marked are thin and pale, as single batches of a noisy loss are."""
        if lines == self.drawn:
            return
        self.drawn = list(lines)
        self.own.options["series"] = [_line(i, *line) for i, line in enumerate(lines)]
        self.own.update()


def _line(index: int, name: str, points: Points, marked: bool) -> dict[str, object]:
    colour = SERIES[index % len(SERIES)]
    return {
        "type": "line", "name": name, "data": [[round(x, 4), round(y, 5)] for x, y in points], "color": colour,
        "showSymbol": marked and len(points) < 60, "symbolSize": 5, "sampling": "lttb",
        "lineStyle": {"width": 2.4 if marked else 1.4, "opacity": 1 if marked else 0.8},
    }  # fmt: skip
