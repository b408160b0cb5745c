"""Functions from the Python source of this project's own pinned dependencies, which are on the machine anyway.

Only the distributions in :data:`DISTRIBUTIONS` are read, never "whatever is installed": what optional extras add does not
change the data. The versions of these distributions are facts of the data set (:func:`versions`), and so is the Python
version, because it decides which files parse.
"""

from __future__ import annotations

import ast
import csv
import importlib.metadata
import platform
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.errors import DataError
from tasks.sources.parsing import parse

DISTRIBUTIONS: tuple[str, ...] = (
    "accelerate",
    "datasets",
    "datasketch",
    "fonttools",
    "fsspec",
    "huggingface-hub",
    "jinja2",
    "joblib",
    "matplotlib",
    "mpmath",
    "networkx",
    "numpy",
    "pandas",
    "patsy",
    "pydantic",
    "pygments",
    "rich",
    "scikit-learn",
    "scipy",
    "statsmodels",
    "sympy",
    "torch",
    "transformers",
    "typer",
)
"""Direct and indirect dependencies of ``pyproject.toml`` (none of an extra), in alphabetical order."""

SKIPPED_FOLDERS = frozenset({"test", "tests", "testing", "_vendor", "vendor", "_vendored_packages", "extern"})
"""Folders whose code is tests or somebody else's copy."""

TOKEN = re.compile(r"[A-Za-z_]\w*|\d+|\S")


def lexical_tokens(text: str) -> list[str]:
    """Identifiers, numbers and single other characters, in order: a tokenizer-free measure of a program's length."""
    return TOKEN.findall(text)


@dataclass(frozen=True, slots=True)
class Module:
    """One source file.

    Attributes:
        name: dotted (``torch.nn.modules.linear``).
        path: the file.
        size: its bytes, as its distribution recorded them (0 where it did not).
    """

    name: str
    path: Path
    size: int = 0

    @property
    def package(self) -> str:
        """The top-level package."""
        return self.name.partition(".")[0]


@dataclass(frozen=True, slots=True)
class Function:
    """A function or method on its own, indented at column 0, without decorators and without its docstring.

    Attributes:
        module: dotted name of the module it stands in; samples' group.
        qualified: its name with the classes around it (``Linear.forward``).
        text: source text, ending in a newline. It need not compile on its own
            (:func:`tasks.sources.parsing.compiles`).
        docstring: cleaned as :func:`inspect.cleandoc` does, or ``None``.
    """

    module: str
    qualified: str
    text: str
    docstring: str | None


def versions() -> dict[str, str]:
    """Version by distribution (local parts such as ``+cpu`` dropped: they do not change the Python source), and Python's.

    Raises:
        DataError: one of :data:`DISTRIBUTIONS` is not installed.
    """
    found = {name: _distribution(name).version.partition("+")[0] for name in DISTRIBUTIONS}
    return {"python": ".".join(platform.python_version_tuple()[:2]), **found}


def _distribution(name: str) -> importlib.metadata.Distribution:
    try:
        return importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        raise DataError(
            f"the embedded data is made from the source of {name!r}, which is not installed here. "
            "Install the project with its pinned dependencies (constraints.txt)."
        ) from None


def modules(distributions: tuple[str, ...] = DISTRIBUTIONS) -> list[Module]:
    """The source modules of the distributions, sorted by name. Nothing is imported.

    Raises:
        DataError: a distribution is not installed, or was installed without its list of files.
    """
    found: dict[str, Module] = {}
    for name in distributions:
        distribution = _distribution(name)
        root = Path(str(distribution.locate_file("")))
        for file, size in _recorded(distribution, name):
            parts = file.split("/")
            if not file.endswith(".py") or parts[0].startswith(".") or not SKIPPED_FOLDERS.isdisjoint(parts):
                continue
            if parts[-1].startswith("test_") or parts[-1] == "conftest.py":
                continue
            dotted = ".".join(parts).removesuffix(".py").removesuffix(".__init__")
            found[dotted] = Module(dotted, root / file, size)
    return [found[name] for name in sorted(found)]


def _recorded(distribution: importlib.metadata.Distribution, name: str) -> list[tuple[str, int]]:
    # Read directly: Distribution.files makes a path object of every row, which costs seconds for 30,000 files.
    record = distribution.read_text("RECORD")
    if record is None:
        raise DataError(f"distribution {name!r} has no RECORD of its files; install it again with pip")
    rows = [row for row in csv.reader(record.splitlines()) if row]
    return [(row[0], int(row[2]) if len(row) > 2 and row[2].isdecimal() else 0) for row in rows]


def functions(module: Module) -> list[Function]:
    """The module's functions and methods in source order; those inside other functions are left out.

    A file that cannot be read or does not parse with this Python gives none; which files do is
    part of the data's digest.
    """
    try:
        source = module.path.read_text(encoding="utf-8")
        tree = parse(source)
    except (OSError, UnicodeDecodeError, SyntaxError, ValueError, RecursionError):
        return []
    # ast counts lines by \n alone (after universal newlines); str.splitlines would also split at form feeds.
    lines = source.split("\n")
    found = []
    for prefix, node in _definitions(tree.body, ""):
        function = _function(module, prefix, node, lines)
        if function is not None:
            found.append(function)
    return found


def _definitions(body: list[ast.stmt], prefix: str) -> Iterator[tuple[str, ast.FunctionDef]]:
    for node in body:
        if isinstance(node, ast.FunctionDef):
            yield prefix, node
        elif isinstance(node, ast.ClassDef):
            yield from _definitions(node.body, f"{prefix}{node.name}.")
        elif isinstance(node, ast.If | ast.Try):
            yield from _definitions(node.body, prefix)


def _function(module: Module, prefix: str, node: ast.FunctionDef, lines: list[str]) -> Function | None:
    docstring = ast.get_docstring(node, clean=True)
    end = node.end_lineno or node.lineno
    kept = lines[node.lineno - 1 : end]
    if docstring is not None:
        first = node.body[0]
        last = first.end_lineno or first.lineno
        shares_line = first.lineno == node.lineno or (
            len(node.body) > 1 and node.body[1].lineno == last  # "doc"; statement
        )
        if len(node.body) == 1 or shares_line:
            return None
        kept = lines[node.lineno - 1 : first.lineno - 1] + lines[last:end]
    text = "\n".join([line.rstrip() for line in kept])
    if node.col_offset:  # elsewhere the first line has no indent, so that there is none to take away
        text = textwrap.dedent(text)
    text = text.strip("\n") + "\n"
    if not text.startswith("def "):
        return None
    return Function(module.name, prefix + node.name, text, docstring)
