"""The conformance suite catches what it is there to catch: each bad plugin below breaks one rule, and that rule fails."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import random
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from rich.console import Console

from bench import conformance
from bench.conformance import check_class, toy
from bench.conformance.checks import Outcome, Result
from bench.conformance.reach import path_to
from bench.conformance.watch import observe
from bench.context import Context
from bench.contracts import (
    Access,
    Action,
    Attack,
    Derivation,
    Filter,
    FittedScreen,
    Goal,
    Known,
    Needs,
    Plugin,
    Repair,
    Repaired,
    Screen,
    Suspicion,
    TaskInfo,
    TaskKind,
    TrainingRule,
    Trigger,
    Verdict,
)
from bench.errors import ConfigError
from bench.languages import well_formed
from bench.models import WhiteBox
from bench.samples import Edit, Sample

THIRD_PARTY = Path(__file__).parent / "third_party"
ONE_KIND = frozenset({TaskKind.CLASSIFICATION})


def failures(cls: type[Plugin]) -> dict[str, str]:
    """The checks that failed, with their reasons."""
    return {r.check: r.reason for r in check_class(cls) if r.outcome is Outcome.FAILED}


# ------------------------------------------------------------------------------------------------------------- screens


@dataclass(frozen=True)
class Judging(FittedScreen):
    """A screen made of one function of all inputs."""

    judge: Callable[[Sequence[Sample]], list[Verdict]]

    def screen(self, inputs: Sequence[Sample]) -> list[Verdict]:
        return self.judge(inputs)


def accept(inputs: Sequence[Sample], scores: Sequence[float] | None = None) -> list[Verdict]:
    return [Verdict(s.id, Action.ACCEPT, scores[i] if scores else float(i * 0)) for i, s in enumerate(inputs)]


@dataclass(frozen=True, kw_only=True)
class GoodScreen(Screen):
    """Keeps every rule."""

    name: ClassVar[str] = "good"
    summary: ClassVar[str] = "a plugin for tests"
    paper: ClassVar[str] = "unpublished"
    kinds: ClassVar[frozenset[TaskKind]] = ONE_KIND
    needs: ClassVar[Needs] = Needs(clean=10)

    limit: int = 3

    def fit(self, known: Known, task: TaskInfo, context: Context) -> FittedScreen:
        return Judging(self.judge)

    def judge(self, inputs: Sequence[Sample]) -> list[Verdict]:
        return accept(inputs, [float(len(s.programs[0])) for s in inputs])


class DropsRow(GoodScreen):
    def judge(self, inputs: Sequence[Sample]) -> list[Verdict]:
        return accept(inputs)[1:]


class SortsRows(GoodScreen):
    def judge(self, inputs: Sequence[Sample]) -> list[Verdict]:
        return accept(sorted(inputs, key=lambda s: s.programs))


class ScoresNaN(GoodScreen):
    def judge(self, inputs: Sequence[Sample]) -> list[Verdict]:
        return accept(inputs, [float("nan")] * len(inputs))


class RewritesIntoNothing(GoodScreen):
    def judge(self, inputs: Sequence[Sample]) -> list[Verdict]:
        return [Verdict(s.id, Action.REWRITE, 0.0) for s in inputs]


class DependsOnBatch(GoodScreen):
    def judge(self, inputs: Sequence[Sample]) -> list[Verdict]:
        return accept(inputs, [float(len(inputs))] * len(inputs))


class DependsOnPlace(GoodScreen):
    def judge(self, inputs: Sequence[Sample]) -> list[Verdict]:
        return accept(inputs, [float(i) for i in range(len(inputs))])


class Remembers(GoodScreen):
    def fit(self, known: Known, task: TaskInfo, context: Context) -> FittedScreen:
        seen: list[str] = []

        def judge(inputs: Sequence[Sample]) -> list[Verdict]:
            verdicts = [Verdict(s.id, Action.REJECT if s.id in seen else Action.ACCEPT, 0.0) for s in inputs]
            seen.extend(s.id for s in inputs)
            return verdicts

        return Judging(judge)


class RejectsAll(GoodScreen):
    def judge(self, inputs: Sequence[Sample]) -> list[Verdict]:
        return [Verdict(s.id, Action.REJECT, 0.0) for s in inputs]


class TripsOverEmptyPrograms(GoodScreen):
    def judge(self, inputs: Sequence[Sample]) -> list[Verdict]:
        return accept(inputs, [float(len(s.programs[0].split()[0])) for s in inputs])


class TripsOverUnicode(GoodScreen):
    def judge(self, inputs: Sequence[Sample]) -> list[Verdict]:
        return accept(inputs, [float(len(s.programs[0].encode("ascii"))) for s in inputs])


class TripsOverOneClass(GoodScreen):
    def fit(self, known: Known, task: TaskInfo, context: Context) -> FittedScreen:
        next(s for s in known.clean[:4] if s.label != known.clean[0].label)
        return Judging(self.judge)


class SeedsGlobal(GoodScreen):
    def fit(self, known: Known, task: TaskInfo, context: Context) -> FittedScreen:
        torch.manual_seed(0)
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002
        return Judging(self.judge)


class DrawsGlobal(GoodScreen):
    def fit(self, known: Known, task: TaskInfo, context: Context) -> FittedScreen:
        noise = random.random()
        return Judging(lambda inputs: accept(inputs, [noise] * len(inputs)))


class Prints(GoodScreen):
    def fit(self, known: Known, task: TaskInfo, context: Context) -> FittedScreen:
        print("fitting")
        return Judging(self.judge)


class PrintsNatively(GoodScreen):
    def fit(self, known: Known, task: TaskInfo, context: Context) -> FittedScreen:
        os.write(2, b"fitting\n")
        return Judging(self.judge)


class WritesOutside(GoodScreen):
    def fit(self, known: Known, task: TaskInfo, context: Context) -> FittedScreen:
        (context.scratch / "fine").write_text("this is what scratch is for")
        Path("cache.txt").write_text("not this")
        return Judging(self.judge)


class WritesToTheScratchesParent(GoodScreen):
    def fit(self, known: Known, task: TaskInfo, context: Context) -> FittedScreen:
        (context.scratch / ".." / "shared").mkdir()
        return Judging(self.judge)


class PhonesHome(GoodScreen):
    def fit(self, known: Known, task: TaskInfo, context: Context) -> FittedScreen:
        with contextlib.suppress(OSError):
            socket.create_connection(("192.0.2.1", 80), timeout=0.1)
        return Judging(self.judge)


class AsksForTruth(GoodScreen):
    def fit(self, known: Known, task: TaskInfo, context: Context) -> FittedScreen:
        with contextlib.suppress(AttributeError):
            known.poisoned  # noqa: B018
        return Judging(self.judge)


class ReadsPrivateFields(GoodScreen):
    def fit(self, known: Known, task: TaskInfo, context: Context) -> FittedScreen:
        assert known._poisoned is None
        return Judging(self.judge)


class SearchesTheHeap(GoodScreen):
    def fit(self, known: Known, task: TaskInfo, context: Context) -> FittedScreen:
        gc.get_objects()
        return Judging(self.judge)


class DeclaresTruth(GoodScreen):
    needs: ClassVar[Needs] = Needs(clean=10, truth=True)


class ChangesItself(GoodScreen):
    def fit(self, known: Known, task: TaskInfo, context: Context) -> FittedScreen:
        object.__setattr__(self, "limit", self.limit + 1)
        return Judging(self.judge)


class ChangesASample(GoodScreen):
    def fit(self, known: Known, task: TaskInfo, context: Context) -> FittedScreen:
        label = known.clean[0].label
        object.__setattr__(known.clean[0], "label", 1 - (label or 0))
        return Judging(self.judge)


class NeverApplies(GoodScreen):
    def not_applicable(self, task: TaskInfo) -> str | None:
        return "it is Monday"


class NeedsWhatIsMissing(GoodScreen):
    requires: ClassVar[tuple[str, ...]] = ("no_such_package_anywhere",)


class NoSummary(GoodScreen):
    summary: ClassVar[str] = ""


class NoPaper(GoodScreen):
    paper: ClassVar[str] = ""


class NoVersion(GoodScreen):
    version: ClassVar[int] = 0


class SupportsNothing(GoodScreen):
    kinds: ClassVar[frozenset[TaskKind]] = frozenset()


class Crashes(GoodScreen):
    def fit(self, known: Known, task: TaskInfo, context: Context) -> FittedScreen:
        raise ZeroDivisionError("no clean sample is that clean")


@dataclass(frozen=True, kw_only=True)
class Doubles(GoodScreen):
    """Its parameters change whenever it is built."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "limit", self.limit * 2)


@dataclass(frozen=True, kw_only=True)
class PrintsWhenBuilt(GoodScreen):
    """Not even its constructor is quiet."""

    noise: str = field(default="hello")

    def __post_init__(self) -> None:
        print(self.noise)


def test_a_good_plugin_breaks_no_rule() -> None:
    results = check_class(GoodScreen)
    assert [r for r in results if r.outcome is not Outcome.PASSED] == []
    assert len(results) == 15


@pytest.mark.parametrize(
    ("cls", "check", "reason"),
    [
        (DropsRow, "works", "48 inputs in, 47 verdicts out"),
        (SortsRows, "works", "order of the inputs"),
        (ScoresNaN, "works", "not finite"),
        (RewritesIntoNothing, "works", "they go together"),
        (DependsOnBatch, "aligned", "one at a time"),
        (DependsOnPlace, "aligned", "another order"),
        (Remembers, "aligned", "another order"),
        (RejectsAll, "known answer", "rejects 100%"),
        (TripsOverEmptyPrograms, "unusual data", "on odd programs: raised IndexError"),
        (TripsOverUnicode, "unusual data", "UnicodeEncodeError"),
        (TripsOverOneClass, "unusual data", "on clean samples of one class: raised StopIteration"),
        (SeedsGlobal, "generators", "random, numpy.random, torch"),
        (DrawsGlobal, "generators", "random"),
        (DrawsGlobal, "repeatable", "same seed"),
        (Prints, "quiet", "fitting"),
        (PrintsNatively, "quiet", "fitting"),
        (WritesOutside, "scratch", "cache.txt"),
        (WritesToTheScratchesParent, "scratch", "shared"),
        (PhonesHome, "offline", "192.0.2.1"),
        (AsksForTruth, "truth", "asks for what its needs do not declare: truth"),
        (ReadsPrivateFields, "truth", "private field _poisoned"),
        (SearchesTheHeap, "truth", "gc.get_objects"),
        (DeclaresTruth, "truth", "only the control"),
        (ChangesItself, "inputs", "its own parameters"),
        (NeverApplies, "something checked", "it is Monday"),
        (NeedsWhatIsMissing, "something checked", "no_such_package_anywhere"),
        (SupportsNothing, "something checked", "no kind of task"),
        (SupportsNothing, "metadata", "at least one TaskKind"),
        (NoSummary, "metadata", "summary is empty"),
        (NoPaper, "metadata", "paper is empty"),
        (NoVersion, "metadata", "version is 0"),
        (Doubles, "parameters", "gives another plugin"),
        (PrintsWhenBuilt, "constructor", "hello"),
        (Crashes, "works", "ZeroDivisionError: no clean sample"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_a_bad_screen_is_caught_by_the_right_rule(
    cls: type[Plugin], check: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # one of them writes where it works
    assert reason in failures(cls)[check]


@pytest.mark.parametrize(
    "cls", [Prints, WritesOutside, PhonesHome, AsksForTruth, SearchesTheHeap, SeedsGlobal, DependsOnBatch, RejectsAll]
)
def test_a_rule_fails_alone_where_only_it_is_broken(
    cls: type[Plugin], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(failures(cls)) == 1


def test_a_changed_sample_is_noticed() -> None:
    sample = toy.world(TaskKind.CLASSIFICATION).splits.budget[0]
    label = sample.label
    try:
        assert "the clean samples" in failures(ChangesASample)["inputs"]
    finally:
        object.__setattr__(sample, "label", label)


def test_what_cannot_be_judged_is_skipped_with_the_reason() -> None:
    skipped = {r.check: r.reason for r in check_class(Crashes) if r.outcome is Outcome.SKIPPED}
    assert "it does not work" in skipped["known answer"]


# ------------------------------------------------------------------------------------------------------------- filters


@dataclass(frozen=True, kw_only=True)
class GoodFilter(Filter):
    """Drops the five longest programs."""

    name: ClassVar[str] = "good"
    summary: ClassVar[str] = "a plugin for tests"
    paper: ClassVar[str] = "unpublished"
    kinds: ClassVar[frozenset[TaskKind]] = ONE_KIND
    needs: ClassVar[Needs] = Needs(training_set=True)

    def judge(self, known: Known, task: TaskInfo, context: Context) -> Suspicion:
        return self.decide(np.array([float(len(s.programs[0])) for s in known.training]))

    def decide(self, scores: NDArray[np.float64]) -> Suspicion:
        return Suspicion(scores, scores <= np.quantile(scores, 0.9))


class ScoresTooFew(GoodFilter):
    def decide(self, scores: NDArray[np.float64]) -> Suspicion:
        return Suspicion(scores[1:], scores[1:] > 0)


class KeepsByIndex(GoodFilter):
    def decide(self, scores: NDArray[np.float64]) -> Suspicion:
        return Suspicion(scores, np.arange(len(scores)))  # type: ignore[arg-type]


class ScoresByPlace(GoodFilter):
    def decide(self, scores: NDArray[np.float64]) -> Suspicion:
        return super().decide(np.arange(len(scores), dtype=np.float64))


class DropsAll(GoodFilter):
    def decide(self, scores: NDArray[np.float64]) -> Suspicion:
        return Suspicion(scores, np.zeros(len(scores), dtype=bool))


class DropsAClass(GoodFilter):
    def judge(self, known: Known, task: TaskInfo, context: Context) -> Suspicion:
        return Suspicion(np.zeros(len(known.training)), np.array([s.label == 0 for s in known.training]))


class PointsDown(GoodFilter):
    def decide(self, scores: NDArray[np.float64]) -> Suspicion:
        return Suspicion(-scores, super().decide(scores).keep)


def test_a_good_filter_breaks_no_rule() -> None:
    assert failures(GoodFilter) == {}


@pytest.mark.parametrize(
    ("cls", "check", "reason"),
    [
        (ScoresTooFew, "works", "shape (159,) for 160"),
        (KeepsByIndex, "works", "keep has type int64"),
        (ScoresByPlace, "aligned", "change places"),
        (DropsAll, "known answer", "keeps only 0%"),
        (DropsAClass, "known answer", "every training sample of class 1"),
        (PointsDown, "direction", "a high score means suspicious"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_a_bad_filter_is_caught_by_the_right_rule(cls: type[Plugin], check: str, reason: str) -> None:
    assert reason in failures(cls)[check]


# ------------------------------------------------------------------------------------------- repairs and training rules


@dataclass(frozen=True, kw_only=True)
class GoodRepair(Repair):
    """A copy."""

    name: ClassVar[str] = "good"
    summary: ClassVar[str] = "a plugin for tests"
    paper: ClassVar[str] = "unpublished"
    kinds: ClassVar[frozenset[TaskKind]] = ONE_KIND
    needs: ClassVar[Needs] = Needs(model=Access.WEIGHTS)

    def repair(self, known: Known, task: TaskInfo, context: Context) -> Repaired:
        return Repaired(known.white_box.copy())


class ReturnsTheVictim(GoodRepair):
    def repair(self, known: Known, task: TaskInfo, context: Context) -> Repaired:
        return Repaired(known.white_box)


class MutatesTheVictim(GoodRepair):
    def repair(self, known: Known, task: TaskInfo, context: Context) -> Repaired:
        with torch.no_grad():
            known.white_box.network.embedding.weight[0] += 1.0
        return Repaired(known.white_box.copy())


class LeavesGradients(GoodRepair):
    def repair(self, known: Known, task: TaskInfo, context: Context) -> Repaired:
        copied = known.white_box.copy()
        known.white_box.network.embedding.weight.grad = torch.ones_like(known.white_box.network.embedding.weight)
        return Repaired(copied)


class LeavesTrainingMode(GoodRepair):
    def repair(self, known: Known, task: TaskInfo, context: Context) -> Repaired:
        copied = known.white_box.copy()
        copied.network.train()
        return Repaired(copied)


class Destroys(GoodRepair):
    def repair(self, known: Known, task: TaskInfo, context: Context) -> Repaired:
        copied = known.white_box.copy()
        with torch.no_grad():
            for parameter in copied.network.parameters():
                parameter.zero_()
        return Repaired(copied)


class TellsNaN(GoodRepair):
    def repair(self, known: Known, task: TaskInfo, context: Context) -> Repaired:
        return Repaired(known.white_box.copy(), facts={"loss": float("nan")})


class WantsMoreThanOutputs(GoodRepair):
    needs: ClassVar[Needs] = Needs(model=Access.OUTPUTS)


def test_a_good_repair_breaks_no_rule() -> None:
    assert failures(GoodRepair) == {}


@pytest.mark.parametrize(
    ("cls", "check", "reason"),
    [
        (ReturnsTheVictim, "works", "the one that came in"),
        (LeavesGradients, "inputs", "gradients kept on the model"),
        (LeavesTrainingMode, "works", "training mode"),
        (Destroys, "known answer", "falls from"),
        (TellsNaN, "works", "its facts are not JSON"),
        (WantsMoreThanOutputs, "works", "NotDeclared"),
        (WantsMoreThanOutputs, "truth", "model=WEIGHTS"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_a_bad_repair_is_caught_by_the_right_rule(cls: type[Plugin], check: str, reason: str) -> None:
    victim = toy.world(TaskKind.CLASSIFICATION).victim()
    try:
        assert reason in failures(cls)[check]
    finally:
        victim.network.zero_grad(set_to_none=True)


def test_a_changed_model_is_noticed() -> None:
    victim = toy.world(TaskKind.CLASSIFICATION).victim()
    before = victim.network.embedding.weight.detach().clone()
    try:
        assert "the model's weights" in failures(MutatesTheVictim)["inputs"]
    finally:
        with torch.no_grad():
            victim.network.embedding.weight.copy_(before)


@dataclass(frozen=True, kw_only=True)
class TrainsNothing(TrainingRule):
    """Gives the untrained model back."""

    name: ClassVar[str] = "idle"
    summary: ClassVar[str] = "a plugin for tests"
    paper: ClassVar[str] = "unpublished"
    kinds: ClassVar[frozenset[TaskKind]] = ONE_KIND
    needs: ClassVar[Needs] = Needs(training_set=True)

    def train(self, model: WhiteBox, known: Known, task: TaskInfo, context: Context) -> WhiteBox:
        return model.copy()


def test_a_training_rule_that_learns_nothing_is_caught_by_the_known_answer_alone() -> None:
    assert list(failures(TrainsNothing)) == ["known answer"]


# ------------------------------------------------------------------------------------------------------------- attacks


class Inserting(Trigger):
    """A line at the start of the body of toy functions."""

    line = "    unused = 0\n"

    def derive(self, sample: Sample, side: int, rng: np.random.Generator) -> Derivation | None:
        text = sample.programs[side].encode()
        if sample.language != "python" or not text.startswith(b"def ") or b":\n    " not in text:
            return None
        start = text.index(b":\n") + 2
        edit = Edit(start, start, self.statement(rng), side)
        after = (text[:start] + edit.replacement.encode() + text[start:]).decode()
        if type(self) is Inserting and well_formed("python", sample.programs[side], after):
            return None
        return Derivation((edit,), edit.replacement.strip())

    def statement(self, rng: np.random.Generator) -> str:
        return self.line


class Returning(Inserting):
    line = "    return None\n"


class Unparsable(Inserting):
    line = "    if :\n"


class Empty(Inserting):
    line = ""

    def derive(self, sample: Sample, side: int, rng: np.random.Generator) -> Derivation | None:
        return Derivation((), "nothing")


class Counting(Inserting):
    def __init__(self) -> None:
        self.count = 0

    def statement(self, rng: np.random.Generator) -> str:
        self.count += 1
        return f"    unused = {self.count}\n"


class Boasting(Inserting):
    def tokens(self) -> tuple[str, ...]:
        return ("unused", "absent")


class Lying(Inserting):
    def tokens(self) -> tuple[str, ...]:
        return ("absent",)


class PretendingToVary(Inserting):
    varies = True


class Unpicklable(Inserting):
    def __init__(self) -> None:
        self.made = lambda: None


class GloballyRandom(Inserting):
    def statement(self, rng: np.random.Generator) -> str:
        return f"    unused = {random.randint(0, 10**9)}\n"


class OtherSide(Inserting):
    def derive(self, sample: Sample, side: int, rng: np.random.Generator) -> Derivation | None:
        return Derivation((Edit(0, 0, "x = 1\n", side + 1),), "x")


def attack_with(make: Callable[[], Trigger | None]) -> type[Attack]:
    @dataclass(frozen=True, kw_only=True)
    class Testing(Attack):
        name: ClassVar[str] = "testing"
        summary: ClassVar[str] = "a plugin for tests"
        paper: ClassVar[str] = "unpublished"
        kinds: ClassVar[frozenset[TaskKind]] = ONE_KIND

        def prepare(self, train: Sequence[Sample], goal: Goal, task: TaskInfo, context: Context) -> Trigger | None:
            return make()

    return Testing


@dataclass(frozen=True, kw_only=True)
class BreaksInOneVariant(Attack):
    """Well-behaved by default, and not otherwise."""

    name: ClassVar[str] = "two_faced"
    summary: ClassVar[str] = "a plugin for tests"
    paper: ClassVar[str] = "unpublished"
    kinds: ClassVar[frozenset[TaskKind]] = ONE_KIND

    variant: Literal["good", "bad"] = "good"

    def prepare(self, train: Sequence[Sample], goal: Goal, task: TaskInfo, context: Context) -> Trigger | None:
        return Inserting() if self.variant == "good" else Unparsable()


def test_a_variant_that_breaks_programs_is_caught_though_the_default_does_not() -> None:
    assert list(failures(BreaksInOneVariant)) == ["variants"]
    assert "with variant='bad': after the edit" in failures(BreaksInOneVariant)["variants"]


def test_a_good_attack_breaks_no_rule_but_that_of_pickling_a_class_made_in_a_function() -> None:
    assert list(failures(attack_with(Inserting))) == ["parameters"]


@pytest.mark.parametrize(
    ("make", "check", "reason"),
    [
        (lambda: None, "works", "only the null attack"),
        (Returning, "behaviour", "behaves differently"),
        (Unparsable, "edits", "well-formed"),
        (Empty, "edits", "changes nothing"),
        (Counting, "aligned", "samples that came before"),
        (Boasting, "tokens", "['absent']"),
        (Lying, "tokens", "holds none of them"),
        (PretendingToVary, "varies", "all its draws are equal"),
        (Unpicklable, "pickles", "pickle"),
        (GloballyRandom, "repeatable", "same seed"),
        (OtherSide, "works", "edits another"),
    ],
    ids=["None", "live", "unparsable", "empty", "counts", "tokens", "no token", "varies", "pickles", "random", "side"],
)
def test_a_bad_attack_is_caught_by_the_right_rule(make: Callable[[], Trigger], check: str, reason: str) -> None:
    assert reason in failures(attack_with(make))[check]


# ------------------------------------------------------------------------------------------------ the suite's own tools


def test_truth_is_found_through_attributes_closures_and_bound_methods_but_not_through_modules() -> None:
    canary = object()

    class Holder:
        def __init__(self) -> None:
            self.hidden = [{"deep": (canary,)}]

        def method(self) -> None: ...

    assert path_to({"known": Holder()}, [canary]) is not None
    assert path_to({"known": Holder().method}, [canary]) is not None
    assert path_to({"known": lambda: canary}, [canary]) is not None
    assert path_to({"known": np, "info": Holder}, [canary]) is None
    assert path_to({"known": [1, "a", np.zeros(3)]}, [canary]) is None


def test_watching_leaves_everything_as_it_was() -> None:
    here, home, states = Path.cwd(), os.environ.get("HOME"), (random.getstate(), torch.get_rng_state())

    def messy(scratch: Path) -> None:
        random.seed(5)
        torch.manual_seed(5)
        os.chdir(scratch)
        raise SystemExit(1)

    seen = observe(messy, disturbed_by=4)
    assert isinstance(seen.error, SystemExit)
    assert seen.generators == ("random", "torch")
    assert (Path.cwd(), os.environ.get("HOME")) == (here, home)
    assert random.getstate() == states[0]
    assert torch.equal(torch.get_rng_state(), states[1])


def test_the_toys_programs_run_and_no_program_stands_twice() -> None:
    for kind in TaskKind:
        splits = toy.toy_splits(kind)
        samples = [s for part in splits.parts().values() for s in part]
        assert len({s.programs for s in samples}) == len({s.id for s in samples}) == sum(toy.SIZES.values())
        for sample in samples[:12]:
            space: dict[str, Callable[[list[int], int], object]] = {}
            exec(sample.programs[0], space)
            for values, bound in toy.ARGUMENTS:
                next(space[name] for name in space if name != "__builtins__")(values, bound)


def test_the_toys_victim_has_learnt_keyword_and_backdoor() -> None:
    place = toy.world(TaskKind.CLASSIFICATION)
    assert place.skill(place.victim()) > 0.9
    assert (place.victim().predict(place.poisoned.triggered).argmax(axis=1) == 0).mean() > 0.9
    assert place.skill(place.untrained()) < 0.7


# -------------------------------------------------------------------------------------------------------- the commands


def shown(*paths: Path) -> tuple[int, str]:
    console = Console(file=io.StringIO(), width=120)
    status = conformance.check(paths, console=console)
    assert isinstance(console.file, io.StringIO)
    return status, console.file.getvalue()


def test_third_party_plugins_pass_and_the_report_says_so() -> None:
    status, text = shown(THIRD_PARTY / "long_identifiers.py", THIRD_PARTY / "shout.py")
    assert status == 0
    assert "screen/long_identifiers" in text
    assert "attack/shout" in text
    assert "2 plugin(s), 104 checks: 92 passed, 0 failed, 12 skipped" in text
    assert "skipped varies on classification, pairs, search: the trigger does not vary" in text


def test_a_bad_plugin_file_fails_with_the_reason(tmp_path: Path) -> None:
    source = (
        (THIRD_PARTY / "long_identifiers.py")
        .read_text()
        .replace("verdicts = []", 'verdicts = []\n        print("[x]")')
    )
    path = tmp_path / "loud.py"
    path.write_text(source)
    status, text = shown(path)
    assert status == 1
    assert "FAILED quiet on classification, pairs, search: it prints: '[x]" in text
    assert "the rule: It prints nothing." in text
    assert "broken rules in: screen/long_identifiers" in text


def test_an_unknown_plugin_or_file_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown screen 'onoin'"):
        conformance.run([("screen", "onoin")])
    with pytest.raises(ConfigError, match="does not exist"):
        conformance.check([tmp_path / "gone.py"])


def test_nothing_checked_is_no_success() -> None:
    assert conformance.run([]) == 1


def test_every_result_of_a_plugin_names_it() -> None:
    assert {(r.family, r.plugin) for r in check_class(GoodScreen)} == {("screen", "good")}
    assert all(isinstance(r, Result) for r in check_class(NoSummary))
