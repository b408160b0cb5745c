"""What poisoning by the rule-based attacks costs, in units of parsing the functions once.

Two questions: a whole training set of which a tenth is poisoned (choosing the trigger, drawing, editing, checking, noting), and a
single edited function. Python is the dearest of the three languages, since its programs are compiled too.
"""

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
from attacks.style import Style
from attacks.unfolding import Unfolding
from attacks.unicode import Unicode
from bench import languages
from bench.context import Context
from bench.contracts import Attack, LabelGoal, Policy, TaskInfo, TaskKind, Trigger
from bench.editing import Editor
from bench.languages.python import broken
from bench.plugins import parameters_of
from bench.poisoning import poison
from bench.samples import Sample, Splits
from tasks.sources.installed import functions, modules
from tests.benchmarks import Measure

TRAINING_SET = 20_000
FUNCTIONS = 2000
REPEATS = 3
POISON = Policy(rate=0.1, of="train")
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
    Style(),
)
INFO = TaskInfo("benchmark", TaskKind.CLASSIFICATION, "python", ("safe", "weak"), "accuracy")


def embedded_functions(count: int, every: int = 7) -> list[Sample]:
    """Functions of four lines or more that compile on their own, from every n-th module of the embedded corpus."""
    found: list[Sample] = []
    for module in modules()[::every]:
        for function in functions(module):
            if function.text.count("\n") > 3 and broken(function.text) == 0:
                found.append(Sample(f"{len(found):016x}", (function.text,), "python", len(found) % 2))
                if len(found) == count:
                    return found
    return found


def run() -> list[Measure]:
    """The rows of both questions; a bound stands on the first."""
    with tempfile.TemporaryDirectory() as folder:
        context = Context({"poison": 0}, Path(folder))
        return _sets(context) + _edits(context)


def _sets(context: Context) -> list[Measure]:
    """Poison a training set as the harness does, beside parsing each of its functions once; processor time."""
    samples = tuple(embedded_functions(TRAINING_SET, every=1))
    parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_python.language()))
    rows = []
    for attack in ATTACKS:
        _forget()
        start = time.process_time()
        for sample in samples:
            parser.parse(sample.programs[0].encode())
        middle = time.process_time()
        trigger = attack.prepare(samples, LabelGoal(), INFO, context)
        poison(Splits(samples, (), (), ()), trigger, LabelGoal(), POISON, INFO, context)
        seconds = time.process_time() - middle
        title = f"poisoning a tenth of {len(samples):,} functions with {_named(attack)}"
        rows.append(Measure(f"{title} / parsing all once", seconds / (middle - start), at_most=4.0))
        rows.append(Measure(f"{title}, seconds", seconds))
    return rows


def _edits(context: Context) -> list[Measure]:
    """Derive, apply, check and note the edit of every function, as the harness does.

    Beside each function's edit stands one parse of it, so that both meet the machine in the same state. Processor time, best of a
    few rounds. The first row is what the harness's check alone costs, whatever the attack: two parses and a compilation.
    """
    samples = embedded_functions(FUNCTIONS)
    rows = [Measure(f"checking {len(samples)} functions / parsing them once", _ratio(samples, _check))]
    for attack in ATTACKS:
        trigger = attack.prepare(samples, LabelGoal(), INFO, context)
        assert trigger is not None
        title = f"editing each of {len(samples)} functions with {_named(attack)} / parsing them once"
        rows.append(Measure(title, _ratio(samples, _editing(trigger, context))))
    return rows


def _named(attack: Attack) -> str:
    choices = ", ".join(f"{key}={value}" for key, value in parameters_of(attack).items())
    return f"{attack.name} ({choices})"


def _forget() -> None:
    languages.parse.cache_clear()
    broken.cache_clear()
    gc.collect()


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
        _forget()
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
