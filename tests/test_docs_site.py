"""The documentation site builds without a warning, and a reference to what does not exist is one."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.contracts import FAMILIES
from bench.plugins import Registry

pytest.importorskip("sphinx", reason="the extra docs is not installed")
pytest.importorskip("furo", reason="the extra docs is not installed")
pytest.importorskip("myst_parser", reason="the extra docs is not installed")

DOCS = Path(__file__).resolve().parents[1] / "docs"


def build(source: Path, target: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sphinx", "-n", "-W", "--keep-going", "-q", str(source), str(target)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy, so that nothing is generated in the tree."""
    folder = tmp_path_factory.mktemp("docs") / "source"
    shutil.copytree(DOCS, folder, ignore=shutil.ignore_patterns("plugins", "_build"))
    return folder


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_each_plugin_has_a_page(source: Path, tmp_path: Path) -> None:
    done = build(source, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    for family in FAMILIES:
        for name in Registry().discover().names(family):
            page = (tmp_path / "plugins" / family / f"{name}.html").read_text(encoding="utf-8")
            assert f"<h1>{name} ({family})" in page
            assert 'href="../../board.html' in page or "No committed board" in page
    start = (tmp_path / "index.html").read_text(encoding="utf-8")
    guides = sorted(path.stem for path in DOCS.glob("*.md") if path.stem not in ("index", "attacks-examples"))
    assert [name for name in guides if f'href="{name}.html"' not in start] == []
    assert "https://" not in start.replace("https://github.com/pradyunsg/furo", "")  # nothing is loaded from elsewhere


@pytest.mark.slow
def test_a_broken_link_and_a_wrong_reference_stop_the_build(source: Path, tmp_path: Path) -> None:
    page = source / "board.md"
    before = page.read_text(encoding="utf-8")
    page.write_text(
        before
        + "\n[gone](gone.md)\n\n```{eval-rst}\n:class:`bench.contracts.Triggered` :class:`bench.contracts.Trigger`\n"
        ":func:`bench.stats.wilson`\n```\n",
        encoding="utf-8",
    )
    (source / "another-guide.md").write_text("# Another guide\n", encoding="utf-8")
    try:
        done = build(source, tmp_path)
    finally:
        page.write_text(before, encoding="utf-8")
        (source / "another-guide.md").unlink()
    assert done.returncode == 1
    warnings = [line for line in done.stderr.splitlines() if "WARNING" in line]
    assert len(warnings) == 2
    assert "'gone.md'" in warnings[0]
    assert "bench.contracts.Triggered" in warnings[1]
    assert 'href="another-guide.html"' in (tmp_path / "index.html").read_text(encoding="utf-8")
