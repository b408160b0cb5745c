"""Guides that are executed: the fenced blocks of a Markdown page, run in order in one folder.

============  ==================================================================================================
``sh``        is run by the shell; it must end with status 0
``python``    is run by Python, or, where its first line is ``# path/to/file``, saved there; ``# edit path`` replaces the lines
              up to ``# becomes`` by those after it
``yaml``, …   the same: saved where the first line names a file
``text``      is what the block before it printed; ``…`` stands for anything, other text is compared word for word
============  ==================================================================================================

All other blocks (``console``, a bare fence) are shown to readers alone.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(r"(?ms)^```(\w+)\n(.*?)^```$")
FILE = re.compile(r"# ((?:edit )?)([\w./-]+\.\w+)\n")


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        language: of the fence.
        text: without the fences.
        line: of the page, for messages.
    """

    language: str
    text: str
    line: int


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    return [Block(m[1], m[2], text.count("\n", 0, m.start()) + 1) for m in FENCE.finditer(text)]


def execute(page: Path, folder: Path) -> Iterator[str]:
    """Run a page in a folder; yields what was done, block by block.

    Raises:
        AssertionError: a command fails, or prints something else than is shown; names the line of the page.
    """
    printed = ""
    for block in blocks(page):
        where = f"{page.name}, line {block.line}"
        if block.language == "text":
            assert shown(block.text).fullmatch(printed), f"{where}: shown is\n{block.text}\nprinted was\n{printed}"
            yield f"{where}: output compared"
        elif (named := FILE.match(block.text)) is not None and block.language not in ("sh", "console"):
            _write(folder / named[2], block.text[named.end() :], edit=bool(named[1]), where=where)
            yield f"{where}: wrote {named[2]}"
        elif block.language in ("sh", "python"):
            printed = _run(block, folder, where)
            yield f"{where}: ran"


def shown(text: str) -> re.Pattern[str]:
    """What output must look like: spaces at line ends are nothing, ``…`` is anything."""
    lines = "\n".join(line.rstrip() for line in text.strip().splitlines())
    return re.compile(r"\s*" + re.escape(lines).replace("…", ".*") + r"\s*", re.DOTALL)


def _write(path: Path, text: str, *, edit: bool, where: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not edit:
        path.write_text(text, encoding="utf-8")
        return
    before, becomes, after = text.partition("# becomes\n")
    known = path.read_text(encoding="utf-8")
    assert becomes, f"{where}: an edit has a line '# becomes'"
    assert known.count(before) == 1, f"{where}: what is edited stands {known.count(before)} times in {path.name}"
    path.write_text(known.replace(before, after), encoding="utf-8")


def _run(block: Block, folder: Path, where: str) -> str:
    here = str(Path(sys.executable).parent)
    environment = os.environ | {
        "PATH": os.pathsep.join([here, os.environ.get("PATH", "")]),
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "200",
        "CODEBACKDOORBENCH_STORE": str(folder / ".store"),
    }
    command = (
        ["bash", "-euo", "pipefail", "-c", block.text] if block.language == "sh" else [sys.executable, "-c", block.text]
    )
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{where}: status {done.returncode}\n{block.text}\n{done.stdout}\n{done.stderr}"
    return "\n".join(line.rstrip() for line in done.stdout.splitlines())
