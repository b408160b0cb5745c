"""Settings of the documentation site (Sphinx), and the two things that are its own: generated pages, and checked references."""

from __future__ import annotations

import importlib
import logging
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

import bench
from bench.documentation import write_pages
from bench.plugins import Registry

ROOT = Path(bench.__path__[0]).parent

project = "CodeBackdoorBench"
author = "the CodeBackdoorBench authors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["attacks-examples.md", "_build", "plugins/definitions.txt"]
myst_heading_anchors = 3
nitpicky = True
smartquotes = False  # quotation marks of parameters are code

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": False}
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 90
napoleon_use_ivar = True

html_theme = "furo"
html_title = "CodeBackdoorBench"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False


def generate(app: Sphinx) -> None:
    """Write the pages of the plugins beside the guides."""
    logging.getLogger("bench").setLevel(logging.ERROR)
    write_pages(Registry().discover(), ROOT, Path(app.srcdir) / "plugins")


def place_guides(app: Sphinx, page: str, source: list[str]) -> None:
    """Guides that the start page does not name follow those that it does."""
    if page == "index":
        names = set(source[0].splitlines())
        others = sorted(found for found in app.env.found_docs if "/" not in found and found not in {"index", *names})
        source[0] = source[0].replace("(others)\n", "".join(f"{name}\n" for name in others))


def exists(name: str) -> bool:
    """Is this the dotted name of a module or of something in one (a field of a data class, too)?"""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:cut]))
        except ImportError:
            continue
        for part in parts[cut:]:
            fields = getattr(found, "__dataclass_fields__", {})
            if not hasattr(found, part) and part not in fields:
                return False
            found = getattr(found, part, None)
        return True
    return False


def unlinked(app: Sphinx, env: object, node: nodes.Element, text: nodes.Element) -> nodes.Element | None:
    """A reference to something that has no page: plain text where that something exists, a warning where it does not.

    The types of signatures are not checked: they are the source's own.
    """
    if node.get("refdomain") != "py":
        return None
    if not isinstance(text, nodes.literal):
        return text
    target, module, cls = node["reftarget"], node.get("py:module"), node.get("py:class")
    names = [target, *(f"{place}.{target}" for place in (module, f"{module}.{cls}") if module)]
    return text if any(map(exists, names)) else None


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("builder-inited", generate)
    app.connect("source-read", place_guides)
    app.connect("missing-reference", unlinked)
    return {"parallel_read_safe": True}
