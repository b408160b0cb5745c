"""SVG elements as escaped text. Colours come from classes alone (``site.css``), so that a chart follows the reader's theme."""

from __future__ import annotations

from collections.abc import Iterable

from markupsafe import Markup, escape


def element(name: str, *content: str | Markup, **attributes: object) -> Markup:
    """One element; text and attribute values are escaped, :class:`~markupsafe.Markup` content is taken as it is.

    ``cls`` becomes ``class``, an underscore a hyphen, a float at most two decimals; an attribute that is ``None`` is left out.
    """
    start = name + "".join(_attribute(key, value) for key, value in attributes.items() if value is not None)
    if not content:
        return Markup(f"<{start}/>")
    return Markup(f"<{start}>{''.join(map(escape, content))}</{name}>")


def _attribute(key: str, value: object) -> str:
    name = "class" if key == "cls" else key.replace("_", "-") if "_" in key else key
    if isinstance(value, float):
        return f' {name}="{round(value, 2):g}"'
    return f' {name}="{escape(value)}"'


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
