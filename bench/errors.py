"""Errors whose message is meant for the person at the keyboard: what was wrong, where, and what to do.

The command line prints these without a traceback and exits with status 2; any other exception is a defect of ours or of a plugin.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BenchError(Exception):
    """Base of all errors that a user can mend."""


class ConfigError(BenchError):
    """A suite file, a parameter or a name is wrong."""


class DataError(BenchError):
    """A data file is missing or malformed."""


class ModelError(BenchError):
    """A model folder or hub name does not load."""


class PluginError(BenchError):
    """A plugin breaks its contract (wrong shape, dropped rows, changed model)."""


class StoreError(BenchError):
    """A store entry cannot be read or written."""


class DamagedArchive(StoreError):
    """An archive is not what ``store export`` writes: cut short, changed, or of something else."""


class ResultLost(StoreError):
    """A result that was taken for known turned out to be damaged or gone: it has to be made again.

    Args:
        message: for people.
        kind: of the stage.
        key: of the result.

    Attributes:
        failed: the stages that had failed in this run when it was found; key -> reason.
    """

    def __init__(self, message: str, kind: str, key: str) -> None:
        super().__init__(message, kind, key)  # all of it, so that it comes whole out of a worker process
        self.kind, self.key = kind, key
        self.failed: dict[str, str] = {}

    def __str__(self) -> str:
        return str(self.args[0])


class Interrupted(Exception):
    """Ctrl-C, after the workers were stopped. What was published is kept."""


def suggest(name: str, options: Iterable[str]) -> str:
    """`` Did you mean 'x'?`` or the list of what there is."""
    options = sorted(options)
    close = difflib.get_close_matches(name, options, n=1, cutoff=0.5)
    if close:
        return f" Did you mean {close[0]!r}?"
    return f" There is: {', '.join(options)}." if options else ""
