"""Watching a plugin while it works: what it prints, writes, reaches for, and what it does to the global generators.

Writes and network are seen through Python's audit events, so that it does not matter by which library they happen; a
folder listing catches what native code writes into the places where files usually go.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import random
import socket
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch

T = TypeVar("T")

WRITING_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
PATH_EVENTS = {
    "os.mkdir": (0,),
    "os.rename": (0, 1),
    "os.remove": (0,),
    "os.rmdir": (0,),
    "os.symlink": (1,),
    "os.link": (1,),
    "os.truncate": (0,),
}
NETWORK_EVENTS = ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname", "socket.bind")
PEEKING_EVENTS = ("gc.get_objects", "gc.get_referrers", "gc.get_referents", "sys._getframe", "sys._current_frames")


class NetworkBlocked(OSError):
    """Raised in place of every connection that a watched plugin tries to make."""


@dataclass
class Log:
    """What was seen while one plugin worked."""

    scratch: Path
    sources: tuple[Path, ...]
    written: list[str] = field(default_factory=list)
    contacted: list[str] = field(default_factory=list)
    peeked: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Observation(Generic[T]):
    """One watched run.

    Attributes:
        result: what the action returned; ``None`` when it raised.
        error: what it raised, with its traceback.
        printed: everything that went to standard output or error, by Python or native code.
        written: paths touched outside the scratch folder.
        contacted: network addresses it tried to reach (all were refused).
        peeked: interpreter internals that the plugin's own code looked into (garbage collector, frames).
        generators: the global generators whose state the action changed.
    """

    result: T | None
    error: BaseException | None
    printed: str
    written: tuple[str, ...]
    contacted: tuple[str, ...]
    peeked: tuple[str, ...]
    generators: tuple[str, ...]

    def value(self) -> T:
        """The result.

        Raises:
            BaseException: what the action raised.
        """
        if self.error is not None:
            raise self.error
        return self.result  # type: ignore[return-value]


_active: list[Log] = []
_hooked = False
_inside = threading.local()


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    """The audit hook; it cannot be removed, and does nothing while nobody is watched."""
    if not _active or getattr(_inside, "hook", False):
        return
    _inside.hook = True  # what the hook itself does raises audit events too
    try:
        _note(_active[-1], event, arguments)
    finally:
        _inside.hook = False


def _note(log: Log, event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open":
        path, mode, flags = arguments[:3]
        writes = (isinstance(mode, str) and bool(set(mode) & set("wax+"))) or bool((flags or 0) & WRITING_FLAGS)
        if writes:
            _note_path(log, path)
    elif event in PATH_EVENTS:
        for position in PATH_EVENTS[event]:
            _note_path(log, arguments[position])
    elif event in NETWORK_EVENTS:
        _note_network(log, event, arguments)
    elif event in PEEKING_EVENTS and _asked_by_plugin(log):
        log.peeked.append(event)


def _note_path(log: Log, path: Any) -> None:
    if not isinstance(path, str | bytes | os.PathLike):
        return
    text = os.fsdecode(path)
    full = Path(os.path.abspath(text))  # noqa: PTH100 (resolve() would open links, inside an audit hook)
    if full.is_relative_to(log.scratch) or "__pycache__" in full.parts or full.is_relative_to("/dev"):
        return
    log.written.append(str(full))


def _note_network(log: Log, event: str, arguments: tuple[Any, ...]) -> None:
    if isinstance(arguments[0], socket.socket) and arguments[0].family not in (socket.AF_INET, socket.AF_INET6):
        return
    address = arguments[1] if isinstance(arguments[0], socket.socket) else arguments[0]
    log.contacted.append(str(address))
    raise NetworkBlocked(f"{event} to {address!r}: a plugin must not use the network")


def _asked_by_plugin(log: Log) -> bool:
    """Is the code that looks into the interpreter the plugin's own (or inspect, called by it)?"""
    frame = sys._getframe(3)
    while frame.f_back is not None and frame.f_code.co_filename.endswith(("inspect.py", "gc.py")):
        frame = frame.f_back
    file = Path(frame.f_code.co_filename)
    return any(file == source or source in file.parents for source in log.sources)


def _states() -> dict[str, bytes]:
    return {
        "random": repr(random.getstate()).encode(),
        "numpy.random": repr([part.tolist() if hasattr(part, "tolist") else part for part in _legacy()]).encode(),
        "torch": torch.get_rng_state().numpy().tobytes(),
    }


def _legacy() -> tuple[Any, ...]:
    return tuple(np.random.get_state(legacy=True))  # noqa: NPY002 (the generator that plugins must leave alone)


@contextlib.contextmanager
def _global_generators(disturbed_by: int | None) -> Iterator[None]:
    """The global generators as they are, or set elsewhere; restored afterwards."""
    before = (random.getstate(), _legacy(), torch.get_rng_state())
    if disturbed_by is not None:
        random.seed(disturbed_by)
        np.random.seed(disturbed_by)  # noqa: NPY002
        torch.default_generator.manual_seed(disturbed_by)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
        torch.set_rng_state(before[2])


@contextlib.contextmanager
def _captured(into: list[str]) -> Iterator[None]:
    """Collect what Python and native code print; warnings and log records are not prints."""
    text = io.StringIO()
    with tempfile.TemporaryFile() as file:
        saved = [os.dup(1), os.dup(2)]
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
        quiet = logging.NullHandler()
        logging.getLogger().addHandler(quiet)
        try:
            with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        finally:
            logging.getLogger().removeHandler(quiet)
            for number, descriptor in zip(saved, (1, 2), strict=True):
                os.dup2(number, descriptor)
                os.close(number)
            file.seek(0)
            into.append(text.getvalue() + file.read().decode(errors="replace"))


@contextlib.contextmanager
def _away(home: Path) -> Iterator[None]:
    """Work in an empty folder that is also the home and the folder for temporary files, so that strays are found there."""
    names = ("HOME", "TMPDIR", "XDG_CACHE_HOME")
    saved, here, temporary = {n: os.environ.get(n) for n in names}, Path.cwd(), tempfile.tempdir
    os.environ.update(dict.fromkeys(names, str(home)))
    tempfile.tempdir = str(home)
    os.chdir(home)
    try:
        yield
    finally:
        os.chdir(here)
        tempfile.tempdir = temporary
        for name, value in saved.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def observe(
    action: Callable[[Path], T], *, sources: tuple[Path, ...] = (), disturbed_by: int | None = None
) -> Observation[T]:
    """Run ``action(scratch)`` and watch it. It never raises for the action; see :meth:`Observation.value`.

    Args:
        action: gets an empty scratch folder, which is deleted afterwards.
        sources: files or folders of the plugin's own code.
        disturbed_by: set the global generators from this seed first, as other code of a program might have.
    """
    global _hooked
    if not _hooked:
        sys.addaudithook(_hook)
        _hooked = True
    printed: list[str] = []
    result: T | None = None
    error: BaseException | None = None
    threads, bytecode = torch.get_num_threads(), sys.dont_write_bytecode
    with tempfile.TemporaryDirectory(prefix="conformance-") as folder:
        home, scratch = Path(folder).resolve() / "home", Path(folder).resolve() / "scratch"
        home.mkdir()
        scratch.mkdir()
        log = Log(scratch, tuple(source.resolve() for source in sources))
        torch.set_num_threads(1)
        sys.dont_write_bytecode = True
        try:
            with _global_generators(disturbed_by), _captured(printed), _away(home):
                before = _states()
                _active.append(log)
                try:
                    result = action(scratch)
                except Exception as raised:
                    error = raised
                except SystemExit as raised:
                    error = raised
                finally:
                    _active.remove(log)
                after = _states()
        finally:
            sys.dont_write_bytecode = bytecode
            torch.set_num_threads(threads)
        touched = [*log.written, *(str(p) for p in sorted(home.rglob("*")) if "__pycache__" not in p.parts)]
        strays = [t.replace(f"{home}{os.sep}", "(working, home or temporary folder)/") for t in touched]
    return Observation(
        result=result,
        error=error,
        printed=printed[0],
        written=tuple(dict.fromkeys(strays)),
        contacted=tuple(log.contacted),
        peeked=tuple(log.peeked),
        generators=tuple(name for name in before if before[name] != after[name]),
    )


def where_raised(error: BaseException, sources: Sequence[Path] = ()) -> str:
    """``file:line`` of an exception: the innermost frame in the plugin's own code, else the innermost of all."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [
        f for f in frames if any(source == Path(f.filename) or source in Path(f.filename).parents for source in sources)
    ]
    last = (own or frames)[-1:]
    return f"{Path(last[0].filename).name}:{last[0].lineno}" if last else "unknown place"
