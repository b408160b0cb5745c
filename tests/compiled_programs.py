"""Compiles and runs C and Java, for tests that ask whether an edit keeps what a program does."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

needs_c = pytest.mark.skipif(shutil.which("gcc") is None, reason="no C compiler (gcc) on this machine")
needs_java = pytest.mark.skipif(
    shutil.which("javac") is None or shutil.which("java") is None,
    reason="no Java compiler (javac, java) on this machine",
)


def c_output(folder: Path, source: str) -> str:
    """What a C program prints, compiled with all warnings as errors."""
    file, binary = folder / "program.c", folder / "program"
    file.write_text(source, encoding="utf-8")
    command = ["gcc", "-Wall", "-Werror", "-Wno-unused", "-o", str(binary), str(file), "-lm"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + source
    return subprocess.run([str(binary)], check=True, capture_output=True, text=True).stdout


def java_output(folder: Path, source: str, name: str = "T") -> str:
    """What ``class T`` with its ``main`` prints, assertions on."""
    file = folder / f"{name}.java"
    file.write_text(source, encoding="utf-8")
    command = ["javac", "-encoding", "UTF-8", "-J-XX:TieredStopAtLevel=1", "-d", str(folder), str(file)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + source
    run = ["java", "-ea", "-XX:TieredStopAtLevel=1", "-cp", str(folder), name]
    return subprocess.run(run, check=True, capture_output=True, text=True).stdout
