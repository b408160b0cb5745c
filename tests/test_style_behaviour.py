"""Style changes keep what programs do: fixtures in three languages are run before and after each."""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from attacks.style.catalogue import STYLES
from attacks.style.convert import carries, converted
from bench.languages import parse, well_formed
from bench.samples import Edit, apply_edits

FIXTURES = Path(__file__).parent / "fixtures" / "style"
FILES = {"python": "program.py.txt", "c": "program.c", "java": "Program.java"}
PAIRS = {
    "python": ("negated_if+not_is", "camel_names+double_quotes", "branches+literal_first"),
    "c": ("while_loop+added_one", "separate_initializer+braced_bodies", "endless_loop+negated_equality"),
    "java": ("while_loop+added_one", "branches+unbraced_bodies", "snake_names+explicit_true"),
}
CASES = [(language, style) for language in FILES for style in (*STYLES[language], *PAIRS[language])]
ALL = pytest.mark.parametrize(("language", "style"), CASES)


@cache
def source(language: str) -> str:
    return (FIXTURES / FILES[language]).read_text(encoding="utf-8")


def functions(language: str, text: str) -> list[tuple[int, int]]:
    """Byte spans of the functions: in Python and C those of the file, in Java the methods of the class; not ``main``."""
    program = parse(language, text)
    spans, stack = [], [program.tree.root_node]
    while stack:
        node = stack.pop()
        if node.type in ("function_definition", "method_declaration"):
            said = program.data[node.start_byte : node.end_byte].decode()
            if not re.search(r"\bmain\(", said.split("{")[0]):
                spans.append((node.start_byte, node.end_byte))
        else:
            stack += node.named_children
    return sorted(spans)


def in_style(language: str, style: str, text: str) -> tuple[str, int]:
    """A whole file with each function converted on its own, as a sample is, and how many functions changed."""
    forms = [STYLES[language][name] for name in style.split("+")]
    data = text.encode()
    edits = []
    for start, end in functions(language, text):
        function = data[start:end].decode()
        done = converted(forms, parse(language, function))
        if done is not None:
            edits.append(Edit(start, end, apply_edits(function, done)))
    return apply_edits(text, edits), len(edits)


@ALL
def test_a_style_has_a_place_in_its_fixture_and_is_stable_there(language: str, style: str) -> None:
    forms = [STYLES[language][name] for name in style.split("+")]
    text = source(language)
    changed = 0
    for start, end in functions(language, text):
        before = text.encode()[start:end].decode()
        for variant in (before, before.replace("\n", "\r\n"), before.replace("    ", "\t")):
            edits = converted(forms, parse(language, variant))
            if edits is None:
                continue
            changed += 1
            after = apply_edits(variant, edits)
            assert after != variant
            assert well_formed(language, variant, after) is None
            assert ("\r" in after) == ("\r" in variant)
            assert after.count("\r") == (after.count("\n") if "\r" in variant else 0)
            if len(forms) == 1:
                assert converted(forms, parse(language, after)) is None
            assert carries(forms, parse(language, after))
            again = [e for e in edits if variant.encode()[e.start : e.end].decode() == e.replacement]
            assert not again
    assert changed >= 3


# ------------------------------------------------------------------------------------------------------------- Python


def printed(text: str) -> str:
    space: dict[str, Any] = {"__name__": "fixture"}
    with contextlib.redirect_stdout(io.StringIO()) as output:
        exec(compile(text, "fixture", "exec"), space)
    return output.getvalue()


@pytest.mark.parametrize("style", [style for language, style in CASES if language == "python"])
@pytest.mark.parametrize("layout", ["spaces", "tabs", "windows"])
def test_python_does_the_same(style: str, layout: str) -> None:
    text = source("python")
    if layout == "tabs":
        text = text.replace("    ", "\t")
    elif layout == "windows":
        text = text.replace("\n", "\r\n")
    after, changed = in_style("python", style, text)
    assert changed >= 1
    assert printed(after) == printed(source("python"))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("ys += [1]", "ys = ys + [1]"),
        ("x < y,", "y > x,"),
        ('if trace(flag, "again")', 'if not trace(flag, "again")'),
        ("not (size < 3 <= 4)", "not (size < 3 and not 3 <= 4)"),
    ],
)
def test_the_python_fixture_notices_what_no_style_may_do(old: str, new: str) -> None:
    changed = source("python").replace(old, new)
    assert changed != source("python")
    assert printed(changed) != printed(source("python"))


# ------------------------------------------------------------------------------------------------------------------ C


@pytest.fixture(scope="module")
def c_outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the C fixture prints, as it is (``""``) and in each style."""
    gcc = shutil.which("gcc")
    if gcc is None:
        pytest.skip("no gcc on this machine")
    folder = tmp_path_factory.mktemp("c")
    outputs = {}
    for style in ("", *(style for language, style in CASES if language == "c")):
        text = in_style("c", style, source("c"))[0] if style else source("c")
        name = folder / (style or "original")
        name.with_suffix(".c").write_text(text, encoding="utf-8")
        command = [gcc, "-w", "-O0", "-fwrapv", str(name.with_suffix(".c")), "-o", str(name), "-lm"]
        compiled = subprocess.run(command, capture_output=True, text=True, check=False)
        assert compiled.returncode == 0, f"{style}: {compiled.stderr}\n{text}"
        outputs[style] = subprocess.run([str(name)], capture_output=True, text=True, check=True, timeout=60).stdout
    return outputs


@pytest.mark.parametrize("style", [style for language, style in CASES if language == "c"])
def test_c_does_the_same(style: str, c_outputs: dict[str, str]) -> None:
    assert "a < b = 1" in c_outputs[""]
    assert c_outputs[style] == c_outputs[""]


# --------------------------------------------------------------------------------------------------------------- Java


@pytest.fixture(scope="module")
def java_outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the Java fixture prints, as it is (``""``) and in each style: compiled at once, each class loaded in one machine."""
    javac, java = shutil.which("javac"), shutil.which("java")
    if javac is None or java is None:
        pytest.skip("no javac and java on this machine")
    folder = tmp_path_factory.mktemp("java")
    styles = ["", *(style for language, style in CASES if language == "java")]
    for number, style in enumerate(styles):
        text = in_style("java", style, source("java"))[0] if style else source("java")
        said = text.replace("public class Program", f"public class Program{number}")
        (folder / f"Program{number}.java").write_text(said, encoding="utf-8")
    calls = " ".join(f'System.out.println("=====");Program{n}.main(args);' for n in range(len(styles)))
    runner = f"public class Runner {{ public static void main(String[] args) throws Exception {{ {calls} }} }}"
    (folder / "Runner.java").write_text(runner, encoding="utf-8")
    command = [javac, "-J-XX:TieredStopAtLevel=1", "-nowarn", "-proc:none", *map(str, sorted(folder.glob("*.java")))]
    compiled = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert compiled.returncode == 0, compiled.stderr
    run = [java, "-XX:TieredStopAtLevel=1", "-cp", str(folder), "Runner"]
    done = subprocess.run(run, capture_output=True, text=True, check=True, timeout=120).stdout
    return dict(zip(styles, done.split("=====\n")[1:], strict=True))


@pytest.mark.parametrize("style", [style for language, style in CASES if language == "java"])
def test_java_does_the_same(style: str, java_outputs: dict[str, str]) -> None:
    assert "known 1110" in java_outputs[""]
    assert java_outputs[style] == java_outputs[""]
