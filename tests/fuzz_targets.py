"""What arbitrary bytes must not do to suite files, records, data files and the languages' edit layer: the checks themselves.

``tests/test_fuzz.py`` asks them with hypothesis. Here they can be asked with atheris, which looks for bytes that take new paths
through the code (extra ``fuzz``; not part of the tests)::

    python -m tests.fuzz_targets edit_layer -max_total_time=120

The name is a key of :data:`TARGETS`, the rest goes to libFuzzer. A check that fails ends the process and leaves the bytes in a file.
A program is data: it is parsed and edited, and never run.
"""

from __future__ import annotations

import gc
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import FunctionType

from bench import languages
from bench.context import Context
from bench.contracts import Task
from bench.errors import ConfigError, DataError
from bench.languages import RenameRefused
from bench.results import ResultsFolder
from bench.samples import apply_edits
from bench.suite import load_suite
from tasks.clone_detection import CloneDetection
from tasks.code_search import CodeSearch
from tasks.defect_detection import DefectDetection

SEEDS = {
    "python": "def f(a, b=1):\n    # é\n    total = a + b\n    for i in range(3):\n        total += i\n    return total\n",
    "java": "int f(int a) {\n  // é\n  int total = a;\n  for (int i = 0; i < 3; i++) { total += i; }\n  return total;\n}\n",
    "c": "int f(int a) {\n  /* é */\n  int total = a;\n  for (int i = 0; i < 3; i++) total += i;\n  return total;\n}\n",
}


def _said(ask: Callable[[], object], kind: type[Exception]) -> str | None:
    """What the error of this kind says, which must be printable; ``None`` where there is none."""
    try:
        ask()
    except kind as error:
        return str(error).encode().decode()
    return None


def suite_file(content: bytes, folder: Path) -> None:
    """Bytes are a suite, or an error that names the file."""
    path = folder / "suite.yaml"
    path.write_bytes(content)
    said = _said(lambda: load_suite(path), ConfigError)
    assert said is None or str(path) in said


def record(content: bytes, folder: Path) -> None:
    """Bytes are a record, or an error that names the file."""
    found = ResultsFolder(folder)
    found.cells.mkdir(exist_ok=True)
    (found.cells / "cell.json").write_bytes(content)
    said = _said(found.records, DataError)
    assert said is None or "cell.json" in said


def data_files(content: bytes, folder: Path) -> None:
    """Bytes in any of the files of a published set are data, or an error that names the file and can be printed."""
    for make, files in _published(folder):
        for name in files:
            whole = (folder / name).read_bytes()
            (folder / name).write_bytes(content)
            said = _said(partial(make.splits, Context({"data": 0}, folder)), DataError)
            assert said is None or str(folder) in said
            (folder / name).write_bytes(whole)


def _published(folder: Path) -> list[tuple[Task, tuple[str, ...]]]:
    """The tasks of a folder with small published sets, each with its files."""
    rows = [{"project": "p", "commit_id": f"c{i}", "target": i % 2, "func": f"int f{i}() {{}}"} for i in range(3)]
    (folder / "function.json").write_text(json.dumps(rows))
    for number, split in enumerate(("train", "valid", "test")):
        (folder / f"{split}.txt").write_text(f"{number}\n")
        row = {
            "code": "def f(x):\n    return x",
            "docstring": "",
            "docstring_tokens": ["f"],
            "repo": "r",
            "path": "a.py",
        }
        (folder / f"{split}.jsonl").write_text(json.dumps(row))
    clones = folder / "clones"
    clones.mkdir(exist_ok=True)
    (clones / "data.jsonl").write_text(
        "".join(json.dumps({"func": f"void f{i}() {{}}", "idx": i}) + "\n" for i in range(2))
    )
    for split in ("train", "valid", "test"):
        (clones / f"{split}.txt").write_text("0\t1\t1\n")
    return [
        (DefectDetection(source="devign", path=str(folder), budget=0), ("function.json", "train.txt")),
        (CloneDetection(source="bigclonebench", path=str(clones), budget=0), ("clones/data.jsonl", "clones/test.txt")),
        (CodeSearch(source="codesearchnet", path=str(folder), budget=0), ("train.jsonl",)),
    ]


def edit_layer(language: str, text: str) -> None:
    """Any text goes through the edit layer: spans lie in it, edits apply, and what comes out parses no worse.

    Half a surrogate pair (what ``surrogateescape`` makes of a byte that is no UTF-8) is refused by name.
    """
    if not _encodes(text):
        assert "half a surrogate pair" in (_said(partial(languages.parse, language, text), DataError) or "nothing")
        return
    program = languages.parse(language, text)
    length = len(text.encode())
    assert languages.well_formed(language, text, text) is None
    spans = [(leaf.start, leaf.end) for leaf in program.leaves] + list(program.comments)
    assert all(0 <= start <= end <= length for start, end in spans)
    for name in (*program.parameters, *program.locals):
        try:
            edits = program.rename(name, "renamed_by_the_test")
        except RenameRefused:
            continue
        after = apply_edits(text, edits)
        assert languages.parse(language, after).error_nodes <= program.error_nodes
        assert after.count("renamed_by_the_test") == len(edits) + text.count("renamed_by_the_test") > 0
    for boundary in program.boundaries:
        statement = "unused_by_the_test = 0" if language == "python" else "int unused_by_the_test = 0;"
        after = apply_edits(text, [program.insert(boundary, statement)])
        assert statement in after
        languages.well_formed(language, text, after)


def _encodes(text: str) -> bool:
    with suppress(UnicodeEncodeError):
        text.encode()
        return True
    return False


def bytes_as_program(content: bytes, folder: Path) -> None:
    """The first byte chooses the language and how the rest is read as text."""
    if not content:
        return
    language = sorted(SEEDS)[content[0] % 3]
    reading = ("utf-8", "latin-1", "surrogateescape")[content[0] // 3 % 3]
    rest = content[1:]
    text = rest.decode("latin-1") if reading == "latin-1" else rest.decode("utf-8", "surrogateescape")
    if reading == "utf-8":
        text = rest.decode("utf-8", "replace")
    edit_layer(language, text)


TARGETS: dict[str, Callable[[bytes, Path], None]] = {
    "suite_file": suite_file,
    "record": record,
    "data_files": data_files,
    "edit_layer": bytes_as_program,
}


INSTRUMENTED = {"bench", "tasks", "yaml", "json"}


def main(arguments: Sequence[str]) -> None:
    """Fuzz one target until libFuzzer is told to stop."""
    import atheris  # type: ignore[import-not-found]

    name = arguments[1] if len(arguments) > 1 else ""
    if name not in TARGETS:
        sys.exit(f"name a target: {', '.join(TARGETS)}; then options of libFuzzer, say -max_total_time=120")
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)

        def ask(content: bytes) -> None:
            TARGETS[name](content, folder)

        # Of all that is loaded (torch alone has tens of thousands of functions) what the targets are about.
        for found in gc.get_objects():
            if isinstance(found, FunctionType) and (found.__module__ or "").split(".")[0] in INSTRUMENTED:
                atheris.instrument_func(found)
        atheris.Setup([arguments[0], *arguments[2:]], ask)
        atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv)
