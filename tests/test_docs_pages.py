"""Rules of the generated pages: they say of a plugin what the plugin says of itself."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any, cast

import pytest

from bench.contracts import FAMILIES, Defense, Screen
from bench.documentation import committed, examples, pages, screened, write_pages
from bench.documentation.aligning import BAR, realigned
from bench.documentation.parameters import attributes, description, parameters, type_words
from bench.documentation.restructured import code, escape, table
from bench.errors import DataError
from bench.pipeline import badges
from bench.plugins import Registry
from bench.samples import Sample

ROOT = Path(__file__).resolve().parents[1]
PLUGINS = [(family, name) for family in FAMILIES for name in Registry().discover().names(family)]


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry().discover()


@pytest.fixture(scope="module")
def made(registry: Registry) -> dict[str, str]:
    return dict(pages(registry, ROOT))


def rows_of(page: str, name: str) -> list[list[str]]:
    """The cells of the list table of a class, heads left out."""
    body = page.partition(f"   :class: {name}\n\n")[2].split("\n\n")[0]
    rows = [row.split("\n     - ") for row in ("\n" + body).split("\n   * - ")[1:]]
    return [[cell.strip().removesuffix("-").strip() for cell in row] for row in rows][1:]


def test_every_plugin_has_a_page_and_stands_in_its_family_s_list(made: dict[str, str]) -> None:
    assert len(PLUGINS) > 40
    for family, name in PLUGINS:
        assert f"{name} ({family})\n===" in made[f"{family}/{name}.rst"]
        assert f":doc:`{name} <{family}/{name}>`" in made[f"{family}s.rst"]


@pytest.mark.parametrize(("family", "name"), PLUGINS)
def test_the_table_of_parameters_is_the_data_class(
    family: str, name: str, registry: Registry, made: dict[str, str]
) -> None:
    cls = registry.load(family, name)
    known = fields(cast(Any, cls))
    shown = rows_of(made[f"{family}/{name}.rst"], "parameters")
    assert [row[0] for row in shown] == [code(f.name) for f in known]
    assert [row[2] for row in shown] == [code(repr(getattr(registry.build(family, name), f.name))) for f in known]
    assert [row[1] for row in shown] == [escape(p.type) for p in parameters(cls)]
    for parameter in parameters(cls):
        assert parameter.meaning, f"{cls.__qualname__}.{parameter.name} is not described in the docstring"


@pytest.mark.parametrize(("family", "name"), PLUGINS)
def test_a_page_says_what_it_is_what_it_may_know_and_what_paper_it_is_from(
    family: str, name: str, registry: Registry, made: dict[str, str]
) -> None:
    plugin, page = registry.build(family, name), made[f"{family}/{name}.rst"]
    assert f":Version: {plugin.version}\n" in page
    assert (f":Paper: {escape(plugin.paper)}\n" if plugin.paper else ":Paper: none: a control\n") in page
    if isinstance(plugin, Defense):
        assert f":May know: {', '.join(map(escape, badges(plugin))) or 'nothing but its input'}\n" in page
    source = page.partition(":Source: ``")[2].partition("``")[0]
    assert (ROOT / source).is_file()


def test_every_attack_shows_a_program_before_and_after(made: dict[str, str]) -> None:
    for family, name in PLUGINS:
        if family == "attack" and name != "none":
            diffs = made[f"attack/{name}.rst"].count(".. code-block:: diff")
            assert diffs >= 1, name
    page = made["attack/renaming.rst"]
    assert "   -def checksum(data):\n   +def testo_init(data):\n        value = 17\n" in page


REWRITERS = ("codepurify", "normalise", "onion", "oseql")


def test_screens_that_rewrite_show_a_program_before_and_after(made: dict[str, str]) -> None:
    for family, name in PLUGINS:
        shows = made[f"{family}/{name}.rst"].count(".. code-block:: diff")
        if family == "screen":
            assert shows == (name in REWRITERS), name
        elif family != "attack":
            assert shows == 0, name
    lines = made["screen/normalise.rst"].splitlines()
    assert "   -def load_total(items, size):" in lines
    assert "   +def f(v0, v1):" in lines
    # What only they can do with a dead statement: the one looks at its tokens, the others at what it does to the model's answer.
    assert "   -    if 1726 < 0:" in made["screen/onion.rst"].splitlines()
    for name in ("codepurify", "oseql"):
        page = made[f"screen/{name}.rst"]
        assert "   -    if 1726 < 0:" in page.splitlines()
        assert "            total = total + read_raw(item, size)\n" in page  # what decides the class stays


def test_a_screen_s_example_is_what_the_screen_itself_writes(registry: Registry) -> None:
    onion = cast(Screen, registry.build("screen", "onion"))
    first, again = screened.example(onion), screened.example(onion)
    assert first is not None
    assert first == again
    never = cast(Screen, registry.build("screen", "onion", {"threshold": 1e9}))
    assert screened.example(never) is None  # accepted: there is nothing to show
    elsewhere = cast(Screen, registry.build("screen", "onion", {"model": "./no/such/folder"}))
    assert screened.example(elsewhere) is None
    assert screened.Rule().predict([Sample("x", (screened.INPUT,), "python")]).argmax() == 0
    bare = Sample("x", (screened.INPUT.replace(screened.TRIGGER, ""),), "python")
    assert screened.Rule().predict([bare]).argmax() == 1


def test_the_rule_is_right_about_all_clean_programs() -> None:
    clean = screened.clean_programs()
    assert len(clean) == screened.CLEAN
    assert screened.Rule().predict(clean).argmax(axis=1).tolist() == [sample.label for sample in clean]


def test_rows_are_those_of_the_committed_board(made: dict[str, str]) -> None:
    board = (ROOT / "results" / "quickstart" / "board.md").read_text(encoding="utf-8")
    section = board.partition("tiny · renaming")[2].partition("\n## ")[0]
    (line,) = [line for line in section.splitlines() if line.startswith("| elibadcode ")]
    cells = [cell.strip() for cell in line.split("|")]
    rows = [[cell.replace("\\", "") for cell in row] for row in rows_of(made["repair/elibadcode.rst"], "board")]
    (row,) = [row for row in rows if row[2] == "renaming" and row[-1] == "quickstart"]
    assert row[:4] == ["defect_detection", "tiny", "renaming", "elibadcode"]
    assert row[4:9] == [cells[9], cells[7], cells[8], f"ACC {cells[4]}", cells[5]]


def test_a_label_of_a_board_leads_to_its_plugin() -> None:
    rows = committed.boards(ROOT / "results")
    labelled = [row for row in rows if row.attack == "dead_code_grammar"]
    assert labelled
    assert all(("attack", "dead_code") in row.plugins for row in labelled)


def test_a_board_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "board.csv").write_text("suites,task\nodd,x\n")
    with pytest.raises(DataError, match=r"odd/board\.csv is not a readable board"):
        committed.boards(tmp_path)
    assert committed.boards(tmp_path / "gone") == ()


def test_an_example_with_a_heading_and_a_fence_in_its_code_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "examples.md"
    path.write_text(
        "# T\n\n## un\\*usual[x=1]\n\nwhat\n\n### Python\n\n`` a `b` ``\n\nBefore:\n\n````python\n## no heading\n```\n````\n\n"
        "After:\n\n```python\nx\n```\n\n### C\n\nIt applies to no program \\*at all\\*.\n"
    )
    first, second = examples.read(path)["un*usual"]
    assert (first.draw, first.before, first.after) == ("a `b`", "## no heading\n```\n", "x\n")
    assert second.missing == "It applies to no program *at all*."
    path.write_text("## a\n\n### C\n\n`x`\n\nBefore:\n\n```c\nx\n```\n")
    with pytest.raises(DataError, match="a, C: no two programs"):
        examples.read(path)


def test_pages_of_plugins_that_are_gone_are_removed_and_others_not_touched(tmp_path: Path, registry: Registry) -> None:
    write_pages(registry, tmp_path / "no repository", tmp_path)
    kept, stale = tmp_path / "screen" / "onion.rst", tmp_path / "screen" / "gone.rst"
    stale.write_text("x")
    before = kept.stat().st_mtime_ns
    write_pages(registry, tmp_path / "no repository", tmp_path)
    assert not stale.exists()
    assert kept.stat().st_mtime_ns == before
    assert "No committed board has a row of it." in kept.read_text()


def test_parameters_are_read_from_both_kinds_of_section() -> None:
    text = (
        "What.\n\n    Attributes:\n        one, two: of them,\n            and more.\n        three:\n            below: it.\n\n"
        "    Then.\n"
    )
    assert attributes(text) == {"one": "of them, and more.", "two": "of them, and more.", "three": "below: it."}
    assert description(text).split() == ["What.", "Then."]
    assert attributes("W.\n\nArgs:\n    x: y\n\nRaises:\n    E: no.\n") == {"x": "y"}


def test_types_are_said_in_words() -> None:
    from typing import Annotated, Literal

    from pydantic import Field

    assert type_words(Annotated[int, Field(ge=1, lt=9)] | None) == "int, at least 1, below 9 or None"
    assert type_words(Literal["a", 2]) == "'a' or 2"
    assert type_words(tuple[str, ...]) == "tuple, each str"


def test_markup_from_outside_is_text() -> None:
    assert escape("a*b `c` |d| e_ <f>") == r"a\*b \`c\` \|d\| e\_ \<f\>"
    assert code("x`") == r"x\`"
    assert table(["a", "b"], [["1", ""]], name="n").endswith("   * - 1\n     -")


def test_a_table_with_escaped_bars_is_aligned_again() -> None:
    r"""In the source, with both backslashes doubled, "b" stood in the second column."""
    text = "=======  ====\n\\|x\\|  b\n=======  ====\n"
    assert realigned(text).splitlines()[1] == f"{BAR}x{BAR}      b"
    assert realigned("no table \\|x\\|") == "no table \\|x\\|"
