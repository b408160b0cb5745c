"""SVG elements as escaped text. Colours come from classes alone (``site.css``), so that a chart follows the reader's theme."""

from __future__ import annotations

from collections.abc import Iterable

from markupsafe import Markup, escape


def element(name: str, *content: str | Markup, **attributes: object) -> Markup:
    """One element; text and attribute values are escaped, :class:`~markupsafe.Markup` content is taken as it is.

    ``cls`` becomes ``class``, an underscore a hyphen, a float at most two decimals; an attribute that is ``None`` is left out.
    """
    parts = [f' {_name(key)}="{escape(_value(value))}"' for key, value in attributes.items() if value is not None]
    inside = "".join(escape(piece) for piece in content)
    start = f"<{name}{''.join(parts)}"
    return Markup(f"{start}>{inside}</{name}>" if inside else f"{start}/>")


def joined(parts: Iterable[Markup]) -> Markup:
    """Elements one after another."""
    return Markup("").join(parts)


def picture(
    width: float, height: float, title: str, description: str, parts: Iterable[Markup], cls: str = ""
) -> Markup:
    """A whole picture with a title and a description for readers who do not see it."""
    return element(
        "svg",
        element("title", title),
        element("desc", description),
        *parts,
        viewBox=f"0 0 {width:g} {height:g}",
        width=width,
        height=height,
        role="img",
        cls=f"chart {cls}".strip(),
    )


def _name(key: str) -> str:
    return "class" if key == "cls" else key.replace("_", "-")


def _value(value: object) -> str:
    return f"{round(value, 2):g}" if isinstance(value, float) else str(value)
