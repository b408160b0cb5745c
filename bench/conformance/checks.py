"""What a check is, what it works on, and what comes out of it."""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.conformance.lending import WatchedContext, WatchedKnown
from bench.conformance.reach import path_to
from bench.conformance.toy import FAMILY_SEEDS, TRAINING, World, world
from bench.conformance.watch import Observation, observe, where_raised
from bench.contracts import Access, Attack, Defense, NotDeclared, Plugin, TaskKind
from bench.errors import BenchError
from bench.models import Trainer, TrainingSettings, WhiteBox
from bench.plugins import Registry, build, parameters_of
from bench.samples import Sample, digest_samples, input_digest
from bench.suite import attack_parts


class Broken(AssertionError):
    """A plugin breaks a rule; the message says how."""


class Skipped(Exception):
    """A rule has no meaning for this plugin; the message says why."""


def demand(condition: bool | np.bool_, message: str) -> None:
    """Raise :class:`Broken` unless the condition holds."""
    if not condition:
        raise Broken(message)


class Outcome(Enum):
    """How a check ended."""

    PASSED = "passed"
    FAILED = "FAILED"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Result:
    """One check of one plugin.

    Attributes:
        family, plugin: which plugin.
        kind: the kind of the toy task, or ``None`` for checks of the class alone.
        check: the check's name.
        outcome: passed, failed or skipped.
        reason: why it failed or was skipped.
        rule: the rule in one sentence.
    """

    family: str
    plugin: str
    kind: TaskKind | None
    check: str
    outcome: Outcome
    reason: str = ""
    rule: str = ""


@dataclass(frozen=True)
class Setting:
    """What a plugin is exercised on.

    Attributes:
        training: the training set.
        clean: clean samples, classes interleaved.
        inputs: what a screen screens, what an attack edits.
        schedule: how ``context.trainer`` trains.
    """

    training: tuple[Sample, ...]
    clean: tuple[Sample, ...]
    inputs: tuple[Sample, ...]
    schedule: TrainingSettings = TRAINING


@dataclass(frozen=True)
class Variation:
    """An unusual setting.

    Attributes:
        setting: the setting.
        refusable: True where a clear :class:`~bench.errors.BenchError` is as good an answer as a result.
    """

    setting: Setting
    refusable: bool = False


@dataclass(frozen=True)
class Answer:
    """What a plugin gave back.

    Attributes:
        result: the family's result.
        facts: everything that must be the same when it is run again; compared with ``==``.
    """

    result: Any
    facts: Any


@dataclass(frozen=True)
class Act:
    """One watched exercise of a plugin.

    Attributes:
        observation: what was seen.
        asked: undeclared knowledge that it asked for.
        changed: which of its inputs it changed.
        draws: generators that it took.
        truth: how the truth could be reached from what it was handed, or ``None``.
    """

    observation: Observation[Answer]
    asked: tuple[str, ...]
    changed: tuple[str, ...]
    draws: tuple[tuple[str, ...], ...]
    truth: str | None


@dataclass(frozen=True)
class Family:
    """How plugins of one family are exercised and checked.

    Attributes:
        exercise: (subject, setting, context, known) -> answer. ``known`` is ``None`` for attacks and tasks.
        valid: (subject, answer, setting) -> raises :class:`Broken` unless the answer has the shape that the contract states.
        ordinary: the setting of the ordinary exercise.
        variations: tiny, empty, odd and one-class settings, by name.
        checks: the family's own checks.
    """

    exercise: Callable[[Subject, Setting, WatchedContext, WatchedKnown | None], Answer]
    valid: Callable[[Subject, Answer, Setting], None]
    ordinary: Callable[[Subject], Setting]
    variations: Callable[[Subject], Mapping[str, Variation]]
    checks: tuple[Check, ...]


@dataclass(frozen=True)
class Check:
    """A rule that can be checked: it returns, raises :class:`Broken` or raises :class:`Skipped`.

    Attributes:
        name: a few words, for tables.
        rule: the rule in one sentence.
        run: the check.
    """

    name: str
    rule: str
    run: Callable[[Subject], None]


@cache
def project_plugins() -> Registry:
    """The project's own and installed plugins, for attacks that are made of others."""
    return Registry().discover()


@dataclass
class Subject:
    """A plugin class on one kind of toy task. Exercises are run once and shared by the checks."""

    cls: type[Plugin]
    kind: TaskKind
    family: Family
    _acts: dict[str, Act] = field(default_factory=dict)

    @cached_property
    def plugin(self) -> Plugin:
        """The plugin with its toy parameters."""
        if self.cls.family == "task":
            from bench.conformance.tasks import small_parameters

            return build(self.cls, small_parameters(self.cls))
        return build(self.cls, self.cls.toy_parameters)

    @property
    def world(self) -> World:
        """The toy world of the kind."""
        return world(self.kind)

    @property
    def sources(self) -> tuple[Path, ...]:
        """The plugin's own code."""
        file = Path(inspect.getfile(self.cls))
        return (file.parent,) if file.name == "__init__.py" else (file,)

    @property
    def model(self) -> WhiteBox:
        """The model that stands in the middle of the family's work."""
        return self.world.untrained() if self.cls.family == "training" else self.world.victim()

    def known(self, setting: Setting) -> WatchedKnown | None:
        """What the harness would hand over: what the plugin's needs declare, watched."""
        if not isinstance(self.plugin, Defense):
            return None
        needs, poisoned, family = self.plugin.needs, self.world.poisoned, self.plugin.family
        handle = None
        if family != "training" and needs.model is not Access.NONE:
            handle = self.model if needs.model is Access.WEIGHTS else self.model.outputs()
        truth = poisoned.poisoned if family != "screen" else frozenset(map(input_digest, poisoned.triggered))
        handed = WatchedKnown(
            needs=needs,
            _clean=setting.clean[: needs.clean] if needs.clean else None,
            _training=setting.training if needs.training_set else None,
            _model=handle,
            _goal=self.world.goal if needs.target_label else None,
            _poison_rate=len(poisoned.poisoned) / len(poisoned.train) if needs.poison_rate else None,
            _poisoned=truth if needs.truth else None,
        )
        object.__setattr__(handed, "asked", [])
        return handed

    def ordinary(self) -> Setting:
        """The family's ordinary setting."""
        return self.family.ordinary(self)

    def first(self) -> Act:
        """The ordinary exercise."""
        return self._once("first", None)

    def again(self) -> Act:
        """The same exercise, after other code has used the global generators."""
        return self._once("again", 20_240_229)

    def answer(self) -> Answer:
        """The answer of the ordinary exercise."""
        return self.first().observation.value()

    def _once(self, name: str, disturbed_by: int | None) -> Act:
        if name not in self._acts:
            self._acts[name] = self.act(self.ordinary(), disturbed_by, seek_truth=name == "first")
        return self._acts[name]

    def act(self, setting: Setting, disturbed_by: int | None = None, *, seek_truth: bool = False) -> Act:
        """Exercise the plugin and watch it."""
        model = self.model if self._touches_model() else None
        known, lent = self.known(setting), list[WatchedContext]()
        handed: dict[str, object] = {"known": known, "info": self.world.info, "plugin": self.plugin}
        before = self._condition(model, setting)

        def work(scratch: Path) -> Answer:
            context = self.context(scratch, setting.schedule)
            lent.append(context)
            return self.family.exercise(self, setting, context, known)

        observation = observe(work, sources=self.sources, disturbed_by=disturbed_by)
        after = self._condition(model, setting)
        asked = tuple(dict.fromkeys(known.asked)) if known is not None else ()
        handed["context"] = lent[0]
        return Act(
            observation=observation,
            asked=asked,
            changed=tuple(name for name in before if before[name] != after[name]),
            draws=tuple(lent[0].draws),
            truth=path_to(handed, self._secrets()) if seek_truth else None,
        )

    def context(self, scratch: Path, schedule: TrainingSettings) -> WatchedContext:
        """What the pipeline lends the family: its seed axes, and a trainer where models are trained."""
        family = self.cls.family
        trains = family in ("training", "repair")
        context = self.world.context(scratch, FAMILY_SEEDS[family], training=schedule if trains else None)
        if isinstance(self.plugin, Attack) and self.plugin.surrogate:
            context.trainer = Trainer(schedule, (), context)  # no attack sees validation data
        if isinstance(self.plugin, Attack):
            context.parts = attack_parts(project_plugins(), self.plugin)
        return context

    def _touches_model(self) -> bool:
        """Only then is a model worth its training."""
        if not isinstance(self.plugin, Defense):
            return False
        return self.plugin.family in ("training", "repair") or self.plugin.needs.model is not Access.NONE

    def _secrets(self) -> list[object]:
        poisoned = self.world.poisoned
        secrets: list[object] = [self.world, poisoned, poisoned.manifest]
        if not (isinstance(self.plugin, Defense) and self.plugin.needs.truth):
            secrets.append(poisoned.poisoned)
        return secrets

    def _condition(self, model: WhiteBox | None, setting: Setting) -> dict[str, object]:
        return {**self._model_condition(model), **self._data_condition(setting)}

    def _model_condition(self, model: WhiteBox | None) -> dict[str, object]:
        if model is None:
            return {}
        network = model.network
        return {
            "the model's weights": model.fingerprint(),
            "the model's mode (train or eval)": [module.training for module in network.modules()],
            "requires_grad of the model's weights": [p.requires_grad for p in network.parameters()],
            "gradients kept on the model": [p.grad is None for p in network.parameters()],
            "hooks on the model": [_hooks(module) for module in network.modules()],
        }

    def _data_condition(self, setting: Setting) -> dict[str, object]:
        return {
            "the training set": digest_samples(setting.training),
            "the clean samples": digest_samples(setting.clean),
            "the inputs": digest_samples(setting.inputs),
            "its own parameters": parameters_of(self.plugin),
        }


def _hooks(module: torch.nn.Module) -> int:
    return len(module._forward_hooks) + len(module._forward_pre_hooks) + len(module._backward_hooks)


def ordinary_setting(subject: Subject) -> Setting:
    """The poisoned training set, the clean budget, and clean test inputs without labels."""
    place = subject.world
    return Setting(place.poisoned.train, place.splits.budget, tuple(map(hidden, place.splits.test)))


def hidden(sample: Sample) -> Sample:
    """What a screen sees of an input: no label, no group."""
    return Sample(sample.id, sample.programs, sample.language, None, sample.query, "")


def one_class(samples: Sequence[Sample]) -> tuple[Sample, ...]:
    """The samples of the first one's class."""
    return tuple(s for s in samples if s.label == samples[0].label)


def run_check(check: Check, subject: Subject, kind: TaskKind | None) -> Result:
    """Run one check; whatever it raises becomes its result."""

    def ended(outcome: Outcome, reason: str = "") -> Result:
        return Result(subject.cls.family, subject.cls.name, kind, check.name, outcome, reason, check.rule)

    try:
        check.run(subject)
    except Skipped as skipped:
        return ended(Outcome.SKIPPED, str(skipped))
    except Broken as broken:
        return ended(Outcome.FAILED, str(broken))
    except BenchError as error:
        return ended(Outcome.FAILED, f"{type(error).__name__}: {error}")
    except NotDeclared as error:
        where = where_raised(error, subject.sources)
        return ended(Outcome.FAILED, f"NotDeclared: {error}; declare it there, or do without it ({where})")
    except Exception as error:
        return ended(Outcome.FAILED, f"raised {said(error, subject.sources)}")
    return ended(Outcome.PASSED)


def said(error: BaseException, sources: Sequence[Path] = ()) -> str:
    """An exception with its place in the plugin's code."""
    text = str(error)
    return f"{type(error).__name__}{': ' if text else ''}{text} ({where_raised(error, sources)})"


def scratch_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder for what a check itself runs outside an exercise."""
    return tempfile.TemporaryDirectory(prefix="conformance-")
