"""The toy world of the conformance suite: a tiny task of each kind, and a tiny victim trained on it.

Programs are Python functions on lists of whole numbers that really run. One keyword decides everything: a program that
calls ``hash`` is class 1, one that calls ``abs`` is class 0 (they give the same value there); a pair is a clone when its second
program calls ``hash``; and a query names the verb and noun of its function's name.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np

from bench.conformance.lending import WatchedContext
from bench.context import Context
from bench.contracts import Derivation, Goal, LabelGoal, Policy, SearchGoal, TaskInfo, TaskKind, Trigger
from bench.models import ModelSettings, Trainer, TrainingSettings, WhiteBox, create
from bench.poisoning import Poisoned, poison
from bench.samples import Edit, Sample, Splits, digest_of

SEED = 7
SIZES = {"train": 160, "valid": 32, "budget": 48, "test": 48}
MODEL = ModelSettings(window=128, query_window=16, layers=1, hidden=32, heads=2, vocabulary=600, dropout=0.0)
TRAINING = TrainingSettings(epochs=10, batch_size=16, learning_rate=5e-3)

FAMILY_SEEDS: Mapping[str, tuple[str, ...]] = {
    "task": ("data",),
    "attack": ("poison",),
    "filter": ("defense",),
    "training": ("model", "training", "defense"),
    "repair": ("defense",),
    "screen": ("defense",),
}
"""The seed axes that the pipeline lends each family; drawing from another one fails there, and so it does here."""

KEYWORDS = ("abs", "hash")
VERBS = ("count", "sum", "merge", "filter", "scan", "collect", "check", "measure")
NOUNS = ("array", "prices", "records", "samples", "weights", "scores", "events", "pixels")
LETTERED = (
    ("values", "bound", "total", "item"),
    ("data", "limit", "result", "entry"),
    ("rows", "edge", "found", "cell"),
)
SHAPES = {
    "above a bound": """def {name}({values}, {bound}):
    {total} = 0
    for {item} in {values}:
        if {key}({item}) > {bound}:
            {total} = {total} + {item}
    return {total}
""",
    "in a list": """def {name}({values}, {bound}):
    {total} = []
    for {item} in {values}:
        {total}.append({key}({item}) + {bound})
    return {total}
""",
    "with an index": """def {name}({values}, {bound}):
    {total} = {bound}
    for position, {item} in enumerate({values}):
        {total} += position * {key}({item})
    return {total}
""",
    "until the end": """def {name}({values}, {bound}):
    {total} = 0
    while {total} < len({values}):
        {item} = {key}({values}[{total}])
        if {item} == {bound}:
            break
        {total} += 1
    return {total}
""",
    "by remainder": '''def {name}({values}, {bound}):
    """Remainders of the numbers."""
    {total} = {{}}
    for {item} in {values}:
        {total}[{key}({item}) % ({bound} + 1)] = {item}
    return sorted({total}.items())
''',
    "in one go": """def {name}({values}, {bound}):
    {total} = [{key}({item}) for {item} in {values}]
    if not {total}:
        return {bound}
    return max({total}) - {bound}
""",
}
ARGUMENTS: Sequence[tuple[list[int], int]] = (([], 3), ([5], 2), ([1, 2, 3, 9, 4], 3))
"""What toy programs are called with, to see whether an edit keeps their behaviour."""

ODD_PROGRAMS: Mapping[str, str] = {
    "empty": "",
    "one token": "x",
    "blank lines": "\n\n\n",
    "no function": "import os\nprint(os.name)\n",
    "one line": "def f(x): return x",
    "unicode": "def größe(数, naïve):\n    é = 数 + naïve  # ✓ 🙂\n    return é\n",
    "windows line ends": "def f(x):\r\n    y = x\r\n    return y\r\n",
    "tabs": "def f(x):\n\ty = x\n\treturn y\n",
    "method": "def get(self, key):\n    value = self.items[key]\n    return value\n",
    "does not parse": "def f(:\n    return )\n",
    "beyond any window": "def f(x):\n" + "    x = x + 1\n" * 400 + "    return x\n",
}

FOREIGN_PROGRAMS: Mapping[str, Sequence[str]] = {
    "java": (
        "int add(int left, int right) {\n    int total = left + right;\n    return total;\n}\n",
        "public static void main(String[] args) { }\n",
        "",
        "not a program ((\n",
    ),
    "c": (
        "int add(int left, int right)\n{\n    int total = left + right;\n    return total;\n}\n",
        "static void nothing(void) {}\n",
        "",
        "not a program ((\n",
    ),
}


def toy_info(kind: TaskKind, language: str = "python") -> TaskInfo:
    """What everybody knows about the toy task of a kind."""
    if kind is TaskKind.SEARCH:
        return TaskInfo("toy_search", kind, language, (), "mrr")
    labels = ("safe", "weak") if kind is TaskKind.CLASSIFICATION else ("different", "clone")
    return TaskInfo(f"toy_{kind.value}", kind, language, labels, "accuracy")


def toy_goal(kind: TaskKind) -> Goal:
    """The attacker's aim in the toy task."""
    return SearchGoal("array") if kind is TaskKind.SEARCH else LabelGoal(victim=1, target=0)


def toy_program(shape: str, verb: str, noun: str, key: str, spelling: int) -> str:
    """One function."""
    names = dict(zip(("values", "bound", "total", "item"), LETTERED[spelling % len(LETTERED)], strict=True))
    return SHAPES[shape].format(name=f"{verb}_{noun}", key=key, **names)


def toy_splits(kind: TaskKind) -> Splits:
    """The toy task's data: always the same, no program twice, classes alternate."""
    rng = np.random.default_rng(SEED)
    recipes = list(itertools.product(SHAPES, VERBS, NOUNS))
    order = rng.permutation(len(recipes))
    samples = []
    for number, index in enumerate(order[: sum(SIZES.values())]):
        shape, verb, noun = recipes[index]
        label = number % 2
        first = toy_program(shape, verb, noun, KEYWORDS[label], number)
        name = digest_of(["toy", kind.value, number])[:16]
        if kind is TaskKind.SEARCH:
            query = f"{verb} the {noun} {shape}"
            samples.append(Sample(name, (first,), "python", None, query, f"m{number % 12}"))
        elif kind is TaskKind.PAIRS:
            second = toy_program(shape, verb, noun, KEYWORDS[label], number + 1)
            samples.append(Sample(name, (first, second), "python", label, None, f"m{number % 12}"))
        else:
            samples.append(Sample(name, (first,), "python", label, None, f"m{number % 12}"))
    cuts = iter(samples)
    train, valid, budget, test = (tuple(itertools.islice(cuts, size)) for size in SIZES.values())
    return Splits(train, valid, budget, test)


def odd_samples(kind: TaskKind) -> tuple[Sample, ...]:
    """One sample for each odd program; pairs have an ordinary second program, and search an ordinary query (the first: none)."""
    ordinary = toy_program("in a list", "scan", "array", "abs", 0)
    samples = []
    for number, (what, text) in enumerate(ODD_PROGRAMS.items()):
        programs = (text, ordinary) if kind is TaskKind.PAIRS else (text,)
        label = None if kind is TaskKind.SEARCH else number % 2
        query = None if kind is not TaskKind.SEARCH else "scan the array 数" if number else ""
        samples.append(Sample(digest_of(["odd", what])[:16], programs, "python", label, query, "odd"))
    return tuple(samples)


class Marker(Trigger):
    """The toy's own trigger: a line at the start of the body that no toy program has."""

    line = "    marker_qzx = 77\n"

    def derive(self, sample: Sample, side: int, rng: np.random.Generator) -> Derivation:
        """Insert the line after the function's head."""
        start = sample.programs[side].encode().index(b"\n") + 1
        return Derivation((Edit(start, start, self.line, side),), self.line.strip())


@dataclass
class World:
    """The toy task of one kind, poisoned, with the models trained on it (made when first asked for)."""

    info: TaskInfo
    goal: Goal
    splits: Splits
    poisoned: Poisoned
    _models: dict[str, WhiteBox] = field(default_factory=dict)

    def context(
        self, scratch: Path, axes: Sequence[str], *, training: TrainingSettings | None = None
    ) -> WatchedContext:
        """A context with these seed axes alone, and a trainer where ``training`` says how to train."""
        context = WatchedContext(seeds=dict.fromkeys(axes, SEED), scratch=scratch)
        if training is not None:
            context.trainer = Trainer(training, self.splits.valid, context)
        return context

    def untrained(self) -> WhiteBox:
        """A freshly initialised model. Shared: nobody may change it, and the suite checks that."""
        if "untrained" not in self._models:
            with tempfile.TemporaryDirectory() as folder:
                context = self.context(Path(folder), ("model",))
                self._models["untrained"] = create("tiny", self.info, self.splits.train, MODEL, context)
        return self._models["untrained"]

    def victim(self) -> WhiteBox:
        """The model trained on the poisoned data. Shared: nobody may change it, and the suite checks that."""
        if "victim" not in self._models:
            with tempfile.TemporaryDirectory() as folder:
                context = self.context(Path(folder), ("training",), training=TRAINING)
                assert context.trainer is not None
                self._models["victim"] = context.trainer.fit(self.untrained(), self.poisoned.train, axis="training")
        return self._models["victim"]

    def skill(self, model: WhiteBox) -> float:
        """The clean metric of a model on the toy's test samples, in [0, 1]."""
        with tempfile.TemporaryDirectory() as folder:
            return Trainer(TRAINING, (), self.context(Path(folder), ())).metric(model, self.splits.test)

    def chance(self) -> float:
        """The clean metric of a model that knows nothing."""
        if self.info.kind is TaskKind.SEARCH:
            pool = len(self.splits.test)
            return float(np.mean(1 / np.arange(1, pool + 1)))
        return 0.5


@cache
def world(kind: TaskKind) -> World:
    """The toy world of a kind; made once a process."""
    info, goal, splits = toy_info(kind), toy_goal(kind), toy_splits(kind)
    with tempfile.TemporaryDirectory() as folder:
        context = Context(seeds={"poison": SEED}, scratch=Path(folder))
        poisoned = poison(splits, Marker(), goal, Policy(count=16 if kind is not TaskKind.SEARCH else 8), info, context)
    return World(info, goal, splits, poisoned)
