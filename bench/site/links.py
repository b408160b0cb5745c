"""Addresses inside a site: relative, so that the folder can lie anywhere and be opened without a server."""

from __future__ import annotations

from urllib.parse import quote

from bench.records import Coordinates

CELLS = "cells"
TRADEOFFS = "tradeoff"
ASSETS = "assets"


def page_name(at: Coordinates) -> str:
    """File name of a cell's page."""
    return f"{at.slug}.html"


def cell_link(at: Coordinates, base: str = f"{CELLS}/") -> str:
    """From the index to a cell's page; ``base=""`` from one cell's page to another's."""
    return base + quote(page_name(at))
