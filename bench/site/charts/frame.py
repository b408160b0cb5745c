"""What charts with two axes share: the frame, the grid, ticks and labels, and where a value stands in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from markupsafe import Markup

from bench.metrics import Number
from bench.site.scale import Axis
from bench.site.svg import element


def plain(value: float) -> str:
    """A tick as it is, with a real minus sign."""
    return f"{value:g}".replace("-", "\u2212")


@dataclass(frozen=True)
class Frame:
    """A plotting area of a picture of ``width`` × ``height``, with room for labels at the left and below."""

    x: Axis
    y: Axis
    x_label: str
    y_label: str
    width: float = 360
    height: float = 264
    left: float = 46
    right: float = 12
    top: float = 12
    bottom: float = 42
    x_text: Callable[[float], str] = plain
    y_text: Callable[[float], str] = plain

    def across(self, value: float) -> float:
        """Horizontal place of a value."""
        return self.left + self.x.place(value) * (self.width - self.left - self.right)

    def down(self, value: float) -> float:
        """Vertical place of a value."""
        return self.height - self.bottom - self.y.place(value) * (self.height - self.top - self.bottom)

    def background(self) -> Iterator[Markup]:
        """Grid, ticks and labels."""
        left, right, top, bottom = self.left, self.width - self.right, self.top, self.height - self.bottom
        for tick in self.y.ticks:
            y = self.down(tick)
            yield element("line", x1=left, x2=right, y1=y, y2=y, cls="grid")
            yield element("text", self.y_text(tick), x=left - 6, y=y + 4, cls="tick end")
        for tick in self.x.ticks:
            x = self.across(tick)
            yield element("line", x1=x, x2=x, y1=top, y2=bottom, cls="grid")
            yield element("text", self.x_text(tick), x=x, y=bottom + 15, cls="tick middle")
        yield element("line", x1=left, x2=right, y1=bottom, y2=bottom, cls="axis")
        yield element("text", self.x_label, x=(left + right) / 2, y=self.height - 6, cls="label middle")
        middle = (top + bottom) / 2
        yield element("text", self.y_label, x=11, y=middle, cls="label middle", transform=f"rotate(-90 11 {middle:g})")

    def cross(self, x: Number, y: Number, cls: str, times: float = 100) -> Iterator[Markup]:
        """The intervals of a point, as far as there are any; values are drawn ``times`` as large."""
        if x.value is not None and x.low is not None and x.high is not None and y.value is not None:
            at = self.down(times * y.value)
            start, end = self.across(times * x.low), self.across(times * x.high)
            yield element("line", x1=start, x2=end, y1=at, y2=at, cls=f"whisker {cls}")
        if y.value is not None and y.low is not None and y.high is not None and x.value is not None:
            at = self.across(times * x.value)
            start, end = self.down(times * y.low), self.down(times * y.high)
            yield element("line", x1=at, x2=at, y1=start, y2=end, cls=f"whisker {cls}")


SHAPES = ("circle", "square", "triangle", "diamond", "cross", "plus", "down", "star")


def marker(shape: int, x: float, y: float, cls: str, title: str = "") -> Markup:
    """A mark whose shape, not only its colour, says what it is."""
    inside = (element("title", title),) if title else ()
    if SHAPES[shape % len(SHAPES)] == "circle":
        return element("circle", *inside, cx=x, cy=y, r=4.5, cls=f"mark {cls}")
    points = _OUTLINES[SHAPES[shape % len(SHAPES)]]
    path = "M" + "L".join(f"{x + dx:.1f} {y + dy:.1f}" for dx, dy in points) + "Z"
    return element("path", *inside, d=path, cls=f"mark {cls}")


_OUTLINES = {
    "square": ((-4, -4), (4, -4), (4, 4), (-4, 4)),
    "triangle": ((0, -5.4), (4.9, 3.6), (-4.9, 3.6)),
    "diamond": ((0, -5.8), (5.2, 0), (0, 5.8), (-5.2, 0)),
    "down": ((0, 5.4), (4.9, -3.6), (-4.9, -3.6)),
    "cross": (
        *((-5, -2.6), (-2.6, -5), (0, -2.4), (2.6, -5), (5, -2.6), (2.4, 0)),
        *((5, 2.6), (2.6, 5), (0, 2.4), (-2.6, 5), (-5, 2.6), (-2.4, 0)),
    ),
    "plus": (
        *((-1.8, -5.2), (1.8, -5.2), (1.8, -1.8), (5.2, -1.8), (5.2, 1.8), (1.8, 1.8)),
        *((1.8, 5.2), (-1.8, 5.2), (-1.8, 1.8), (-5.2, 1.8), (-5.2, -1.8), (-1.8, -1.8)),
    ),
    "star": (
        *((0, -6), (1.5, -2), (5.7, -1.9), (2.4, 0.8), (3.5, 4.9)),
        *((0, 2.5), (-3.5, 4.9), (-2.4, 0.8), (-5.7, -1.9), (-1.5, -2)),
    ),
}
