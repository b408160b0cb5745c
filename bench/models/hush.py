"""Silence from ``transformers`` for a block: neither bars nor reports; what matters in them is raised as an error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers.utils import logging as transformers_logging

_log: Any = transformers_logging  # its functions carry no types


@contextmanager
def quiet() -> Iterator[None]:
    """Errors only and no bars; the level and the bars come back as they were."""
    level, bars = _log.get_verbosity(), _log.is_progress_bar_enabled()
    _log.set_verbosity_error()
    _log.disable_progress_bar()
    try:
        yield
    finally:
        _log.set_verbosity(level)
        if bars:
            _log.enable_progress_bar()
