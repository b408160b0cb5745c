"""What poisoning by the rule-based attacks costs, in units of parsing the functions once."""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import tree_sitter
import tree_sitter_python

from attacks.badcode import BadCode
from attacks.dead_code import DeadCode
from attacks.renaming import Renaming
from attacks.unfolding import Unfolding
from attacks.unicode import Unicode
from bench import languages
from bench.context import Context
from bench.contracts import Attack, LabelGoal, TaskInfo, TaskKind, Trigger
from bench.editing import Editor
from bench.languages.python import broken
from bench.plugins import parameters_of
from bench.samples import Sample
from tasks.sources.installed import functions, modules
from tests.benchmarks import Measure

FUNCTIONS = 2000
REPEATS = 3
ATTACKS: Sequence[Attack] = (
    DeadCode(),
    DeadCode(variant="grammar"),
    DeadCode(variant="bait"),
    DeadCode(variant="snippet"),
    Renaming(),
    Renaming(where="variable"),
    BadCode(),
    BadCode(where="rarest"),
    Unfolding(),
    Unicode(),
)
INFO = TaskInfo("benchmark", TaskKind.CLASSIFICATION, "python", ("safe", "weak"), "accuracy")


def embedded_functions(count: int) -> list[Sample]:
    """Functions of four lines or more that compile on their own, from every seventh module of the embedded corpus."""
    found: list[Sample] = []
    for module in modules()[::7]:
        for function in functions(module):
            if function.text.count("\n") > 3 and broken(function.text) == 0:
                found.append(Sample(f"{len(found):016x}", (function.text,), "python", 1))
                if len(found) == count:
                    return found
    return found


def run() -> list[Measure]:
    """Derive, apply, check and note the edit of every function, as the harness does.

    Beside each function's edit stands one parse of it, so that both meet the machine in the same state. Processor time, best of a
    few rounds. The first row is what the harness's check alone costs, whatever the attack: two parses and a compilation.
    """
    samples = embedded_functions(FUNCTIONS)
    with tempfile.TemporaryDirectory() as folder:
        context = Context({"poison": 0}, Path(folder))
        rows = [Measure(f"checking {len(samples)} functions / parsing them once", _ratio(samples, _check))]
        for attack in ATTACKS:
            trigger = attack.prepare(samples, LabelGoal(), INFO, context)
            assert trigger is not None
            choices = ", ".join(f"{key}={value}" for key, value in parameters_of(attack).items())
            title = f"poisoning {len(samples)} functions with {attack.name} ({choices}) / parsing them once"
            rows.append(Measure(title, _ratio(samples, _editing(trigger, context)), at_most=4.0))
    return rows


def _check(sample: Sample) -> object:
    text = sample.programs[0]
    return languages.well_formed("python", text, text + "\n")


def _editing(trigger: Trigger, context: Context) -> Callable[[Sample], object]:
    editor = Editor(trigger.derive, trigger.describe(), context)
    return lambda sample: editor.edit(sample, (0,), "train")


def _ratio(samples: Sequence[Sample], edit: Callable[[Sample], object]) -> float:
    parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_python.language()))
    clock = time.process_time
    best = float("inf")
    for _ in range(REPEATS):
        languages.parse.cache_clear()
        broken.cache_clear()
        gc.collect()
        parsing = editing = 0.0
        for sample in samples:
            data = sample.programs[0].encode()
            start = clock()
            parser.parse(data)
            middle = clock()
            edit(sample)
            editing += clock() - middle
            parsing += middle - start
        best = min(best, editing / parsing)
    return best
