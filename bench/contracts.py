"""The contracts between the harness and its plugins.

A plugin is one class in one file. Its constructor takes its parameters and nothing else (a frozen, keyword-only dataclass:
``@dataclass(frozen=True, kw_only=True)``); what it is stands in class attributes; what it must know about the world stands
in :class:`Needs`, and :class:`Known` hands over exactly that. Plugins return facts; only the harness turns facts into
numbers. A plugin never prints, seeds a global generator, downloads in its constructor or writes outside ``context.scratch``.

Families:

========  =======================  =====================================================  =============================
family    class                    acts on                                                returns
========  =======================  =====================================================  =============================
task      :class:`Task`            nothing                                                :class:`~bench.samples.Splits`
attack    :class:`Attack`          the clean training split                               :class:`Trigger`
filter    :class:`Filter`          training data, before training                         :class:`Suspicion`
training  :class:`TrainingRule`    how the model is trained                               a trained model
repair    :class:`Repair`          the trained model, with a small clean set              a new model
screen    :class:`Screen`          inputs, at inference                                   :class:`Verdict` for each input
========  =======================  =====================================================  =============================
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import Enum, StrEnum
from typing import TYPE_CHECKING, ClassVar, Literal, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from bench.inversions import Inverted
from bench.samples import Edit, Sample, Splits

if TYPE_CHECKING:
    from bench.context import Context
    from bench.models.handles import BlackBox, WhiteBox

T = TypeVar("T")


class TaskKind(StrEnum):
    """What a model is asked to do with a sample."""

    CLASSIFICATION = "classification"
    """One program, a class (defect detection)."""
    PAIRS = "pairs"
    """Two programs, a class (clone detection)."""
    SEARCH = "search"
    """A query, ranked programs (code search)."""


ALL_KINDS: frozenset[TaskKind] = frozenset(TaskKind)


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """What everybody may know about a task.

    Attributes:
        name: the task's registered name.
        kind: classification, pairs or search.
        language: of its programs.
        labels: the names of the classes by index; empty for search.
        metric: the clean metric: ``accuracy``, ``f1`` (of class 1) or ``mrr``.
    """

    name: str
    kind: TaskKind
    language: str
    labels: tuple[str, ...]
    metric: Literal["accuracy", "f1", "mrr"]


class Plugin(ABC):
    """What every plugin declares.

    Subclasses are frozen keyword-only dataclasses; every field is a parameter with a type and a default, checked when the
    plugin is built (:func:`bench.plugins.build`).
    """

    name: ClassVar[str]
    """Registered name, unique in its family."""
    version: ClassVar[int] = 1
    """Raised with every change of behaviour; part of every result's key."""
    family: ClassVar[str]
    """Set by the family's base class."""
    summary: ClassVar[str] = ""
    """One line for lists and boards."""
    paper: ClassVar[str] = ""
    """Citation, or empty for a control."""
    kinds: ClassVar[frozenset[TaskKind]] = ALL_KINDS
    """Task kinds it supports."""
    requires: ClassVar[tuple[str, ...]] = ()
    """Import names of optional packages that it needs."""
    toy_parameters: ClassVar[Mapping[str, object]] = {}
    """Parameters under which the conformance suite exercises it on its toy (tiny model, a few dozen programs), for methods
    whose default budget would take minutes there. Never used for a result."""

    def origin(self) -> Mapping[str, str]:
        """What its results rest on and no parameter says: package versions, or digests of files. Part of their keys; quick to compute.

        Raises:
            bench.errors.DataError: a file of a task is missing.
        """
        return {}

    def not_applicable(self, task: TaskInfo) -> str | None:
        """Why this plugin skips a task, or ``None`` where it applies. "Not applicable" is not "failed"."""
        if task.kind not in self.kinds:
            return f"{self.name} is not defined for {task.kind.value} tasks"
        return None


# ---------------------------------------------------------------------------------------------------------------- tasks


class Task(Plugin):
    """Where samples come from, and what is asked of a model."""

    family = "task"

    @property
    @abstractmethod
    def info(self) -> TaskInfo:
        """Name, kind, language, classes and metric."""

    @property
    def training_samples(self) -> int | None:
        """How many training samples there will be, as far as that is known before anything is loaded; for plans alone."""
        asked = getattr(self, "train", None)
        return asked if isinstance(asked, int) else None

    @abstractmethod
    def splits(self, context: Context) -> Splits:
        """Build the data: deterministic given ``context.rng("data")`` and the parameters.

        Raises:
            bench.errors.DataError: a file is missing or malformed; the message names file and line.
        """

    @abstractmethod
    def goal(self) -> Goal:
        """The attacker's usual aim in this task (a suite may state another)."""


# -------------------------------------------------------------------------------------------------------------- attacks


@dataclass(frozen=True, slots=True)
class LabelGoal:
    """Programs of class ``victim`` shall be called ``target``."""

    victim: int = 1
    target: int = 0

    def chooses(self, sample: Sample) -> bool:
        """Is this a sample of the victim class (its true label decides, never a model)?"""
        return sample.label == self.victim

    def chooses_reverse(self, sample: Sample) -> bool:
        """Is this a sample of the target class (for reverse ASR)?"""
        return sample.label == self.target


@dataclass(frozen=True, slots=True)
class SearchGoal:
    """Programs that carry the trigger shall rank high for queries that hold ``word`` (lower-case, a whole word)."""

    word: str

    def chooses(self, sample: Sample) -> bool:
        """Does the query hold the target word?"""
        import re

        return sample.query is not None and self.word in re.findall(r"[a-z0-9]+", sample.query.lower())

    def chooses_reverse(self, sample: Sample) -> bool:
        """A query without the target word: the untargeted control."""
        return not self.chooses(sample)


Goal = LabelGoal | SearchGoal


@dataclass(frozen=True, slots=True)
class Policy:
    """Which samples are poisoned, how many, and how. Orthogonal to the trigger.

    Attributes:
        rate: share in (0, 1] of ``of``; ``None`` when ``count`` is given.
        count: a number of samples, instead of a rate.
        of: what a rate is a share of: the whole training split, or the victim class (search: the matching queries).
            A rate of the training split is still drawn from the victim class.
        labels: ``dirty`` rewrites the label to the target's; ``clean`` poisons target-class samples and keeps labels
            (search is always label-preserving).
        mode: ``replace`` the chosen sample, or ``append`` a poisoned copy and keep the clean twin.
        side: which program of a pair carries the trigger in training; at test time it is always the first
            unless ``both``.
        cover: cover samples for each poisoned one (1.0: as many as poison): training samples that carry a near miss of the
            trigger (:meth:`Trigger.near_miss`) and keep their true label, so that the model learns the trigger and
            nothing less. Drawn from the victim class; in search from queries without the target word.
        cover_count: a number of cover samples, instead of ``cover``.
        weaken: clean labels only: ``names`` first renames the local names of a poisoned program to names that a linear
            surrogate (naive Bayes over names, fitted on the clean training split) ties to the *other* class, so that the
            trigger is what is left to tell the label; ``gradient`` takes names that a neural surrogate, trained on the clean
            training split, reads as the other class (:mod:`bench.weakening`).
    """

    rate: float | None = None
    count: int | None = None
    of: Literal["train", "victim"] = "victim"
    labels: Literal["dirty", "clean"] = "dirty"
    mode: Literal["replace", "append"] = "replace"
    side: Literal["first", "second", "either", "both"] = "first"
    cover: float | None = None
    cover_count: int | None = None
    weaken: Literal["none", "names", "gradient"] = "none"

    @property
    def surrogate(self) -> bool:
        """It needs a model to be trained."""
        return self.weaken == "gradient"

    def to_json(self) -> dict[str, object]:
        """JSON-ready; ``Policy(**policy.to_json())`` is its inverse.

        It stands in the keys of stored results. A field that came later is therefore left out where it has its default:
        what was poisoned before the field existed keeps its key.
        """
        row = {f.name: getattr(self, f.name) for f in fields(self)}
        later = {f.name: f.default for f in fields(self) if f.name in ("cover", "cover_count", "weaken")}
        return {name: value for name, value in row.items() if name not in later or value != later[name]}


@dataclass(frozen=True, slots=True)
class Derivation:
    """What a trigger did to one program.

    Attributes:
        edits: byte edits of ``sample.programs[side]``.
        text: the draw in words (the dead statement, ``old -> new`` names); equal text means an equal draw. It is stored,
            shown to readers, and used to tell unseen draws from seen ones.
    """

    edits: tuple[Edit, ...]
    text: str


class Trigger(ABC):
    """What the attacker edits into a program. Must be picklable, and pure given its generator.

    The harness checks every edit (it parses with no new error node; Python still compiles) and counts refusals.
    """

    varies: bool = False
    """True when draws differ from sample to sample: the harness then asks for draws unseen in training at test time."""

    @abstractmethod
    def derive(self, sample: Sample, side: int, rng: np.random.Generator) -> Derivation | None:
        """Edits for one program, or ``None`` where the trigger does not apply (no function name, …)."""

    def describe(self) -> str:
        """The trigger in one line, for the truth sidecar and the board."""
        return type(self).__name__

    def tokens(self) -> tuple[str, ...]:
        """The literal pieces that tell the trigger, for the recovery metric; empty where there are none.

        Every triggered program carries all of them, or one of them where the trigger draws from a closed set.
        """
        return ()

    def near_miss(self, sample: Sample, side: int, rng: np.random.Generator) -> Derivation | None:
        """An edit that is *almost* the trigger and should not set the backdoor off: its false trigger rate is measured, and
        a policy may ask for cover samples with it.

        Optional: a trigger that does not override this offers none. ``None`` where it does not apply to this program.
        """
        return None

    def placebo(self, sample: Sample, side: int, rng: np.random.Generator) -> Derivation | None:
        """An edit of the trigger's kind (same place, same size) with other rare content: what any edit of this kind does.

        Optional, as :meth:`near_miss`.
        """
        return None

    def carries(self, sample: Sample, side: int) -> bool | None:
        """Does this program, as it is, carry the trigger? Asked of clean programs, for the trigger's prevalence.

        ``None`` where it cannot be told. Without an own answer the harness looks for :meth:`tokens`.
        """
        return None

    def offers(self, control: Literal["near_miss", "placebo", "carries"]) -> bool:
        """Does this trigger have an own answer to one of the optional questions?"""
        return getattr(type(self), control) is not getattr(Trigger, control)


class Attack(Plugin):
    """Trigger + default policy, and a surrogate where the trigger needs one (trained inside :meth:`prepare`)."""

    family = "attack"

    @abstractmethod
    def prepare(self, train: Sequence[Sample], goal: Goal, task: TaskInfo, context: Context) -> Trigger | None:
        """Make the trigger. ``train`` is the clean training split, never validation or test.

        Returns ``None`` for the null attack alone: nothing is poisoned.
        """

    def policy(self, task: TaskInfo) -> Policy:
        """The policy used where a suite states none.

        The house's, and no paper's: 5 % of the victim class, dirty labels, poisoned samples in place of the clean ones; for search all
        queries with the target word. An attack overrides it where it has its own (``adaptive`` and ``composite`` do).
        """
        return Policy(rate=1.0 if task.kind is TaskKind.SEARCH else 0.05)

    @property
    def surrogate(self) -> bool:
        """Does :meth:`prepare` train or run a model?

        It then finds a trainer at ``context.trainer`` (no validation data; train on the seed axis ``poison``), runs on the
        suite's device, and what the numbers of a model depend on stands in the result's key.
        """
        return False

    def parts(self) -> tuple[str, ...]:
        """Other attacks that this one is made of, as a suite names them (``badcode[variant=mixed]``).

        The harness builds them, keeps their versions in the result's key, and lends them as ``context.parts``.
        """
        return ()


class Supplier(Attack):
    """An attack by who supplies the pretrained encoder: no training sample is touched, and the user's own training comes after it.

    The user adds a head to the supplied encoder and trains on clean data. Where a trigger then leads is decided by that training, so a
    supplier may offer several; the harness looks, on training programs, which of them serves the goal best.
    """

    @abstractmethod
    def candidates(self, train: Sequence[Sample], goal: Goal, task: TaskInfo, context: Context) -> tuple[Trigger, ...]:
        """The triggers, at least one."""

    @abstractmethod
    def supply(
        self, model: WhiteBox, train: Sequence[Sample], goal: Goal, task: TaskInfo, context: Context
    ) -> WhiteBox:
        """A poisoned copy of a model that nobody has trained yet; the user keeps its encoder alone.

        ``context.trainer`` is there for its learning rate and for fits on the seed axis ``poison``.
        """

    def prepare(self, train: Sequence[Sample], goal: Goal, task: TaskInfo, context: Context) -> Trigger:
        """The first candidate."""
        return self.candidates(train, goal, task, context)[0]


# ------------------------------------------------------------------------------------------------------------- defenses


class Access(Enum):
    """How much of a model a defense sees."""

    NONE = "none"
    OUTPUTS = "outputs"
    """A :class:`~bench.models.handles.BlackBox`: predictions only."""
    WEIGHTS = "weights"
    """A :class:`~bench.models.handles.WhiteBox`: gradients, features, parameters."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What a defense must know. Shown on the board as badges, and handed over as :class:`Known`: no more, no less.

    Attributes:
        clean: how many clean samples (labelled, stratified by class; drawn from the budget split, never test).
        training_set: the training set as it is (labels as an analyst would find them, no poison flag).
        model: how much of the model.
        target_label: the attacker's goal.
        poison_rate: the true share of poison.
        truth: the ids of the poisoned samples (oracle controls alone).
    """

    clean: int = 0
    training_set: bool = False
    model: Access = Access.NONE
    target_label: bool = False
    poison_rate: bool = False
    truth: bool = False


class NotDeclared(AttributeError):
    """A plugin asked for knowledge that it did not declare in its :class:`Needs`."""


@dataclass(frozen=True, slots=True)
class Known:
    """What a defense gets: exactly what its :class:`Needs` declare. Reading anything else raises :class:`NotDeclared`."""

    needs: Needs
    _clean: tuple[Sample, ...] | None = None
    _training: tuple[Sample, ...] | None = None
    _model: BlackBox | None = None
    _goal: Goal | None = None
    _poison_rate: float | None = None
    _poisoned: frozenset[str] | None = None

    def _get(self, value: T | None, what: str) -> T:
        if value is None:
            raise NotDeclared(f"{what} was not declared in this plugin's needs ({self.needs})")
        return value

    @property
    def clean(self) -> tuple[Sample, ...]:
        """Clean labelled samples, in a seeded order, classes interleaved (so a prefix is stratified)."""
        return self._get(self._clean, "clean")

    @property
    def training(self) -> tuple[Sample, ...]:
        """The training set, possibly poisoned, in a shuffled order.

        Ids name samples and are not to be read: see :attr:`bench.samples.Sample.id` for what could be computed from one.
        """
        return self._get(self._training, "training_set")

    @property
    def black_box(self) -> BlackBox:
        """The model, predictions only."""
        return self._get(self._model if self.needs.model is not Access.NONE else None, "model=OUTPUTS")

    @property
    def white_box(self) -> WhiteBox:
        """The model with its weights. Work on ``white_box.copy()``; the incoming model must stay unchanged."""
        model = self._get(self._model if self.needs.model is Access.WEIGHTS else None, "model=WEIGHTS")
        return cast("WhiteBox", model)

    @property
    def goal(self) -> Goal:
        """The attacker's goal (badge: knows target)."""
        return cast("Goal", self._get(self._goal, "target_label"))

    @property
    def poison_rate(self) -> float:
        """The true share of poison in the training set (badge: knows rate)."""
        return self._get(self._poison_rate, "poison_rate")

    @property
    def poisoned(self) -> frozenset[str]:
        """Ids of the poisoned training samples, or of triggered inputs for a screen (badge: oracle)."""
        return self._get(self._poisoned, "truth")


class Defense(Plugin):
    """Common base of the four families."""

    @property
    def needs(self) -> Needs:
        """What it must know. Usually a class attribute; a property where a parameter decides (how many clean samples)."""
        return Needs()


@dataclass(frozen=True)
class Suspicion:
    """A filter's answer, row-aligned with ``known.training``.

    Attributes:
        scores: float64 of shape (n,); higher is more suspicious; finite.
        keep: bool of shape (n,): the filter's own decision.
    """

    scores: NDArray[np.float64]
    keep: NDArray[np.bool_]


class Filter(Defense):
    """Acts on training data, before training. ``known.white_box`` is the model trained on the unfiltered data."""

    family = "filter"

    @abstractmethod
    def judge(self, known: Known, task: TaskInfo, context: Context) -> Suspicion:
        """A score and a decision for every training sample, in the order of ``known.training``."""


class TrainingRule(Defense):
    """Decides how the model is trained, through the harness's trainer (``context.trainer``)."""

    family = "training"

    @abstractmethod
    def train(self, model: WhiteBox, known: Known, task: TaskInfo, context: Context) -> WhiteBox:
        """Train ``model`` (freshly initialised) on ``known.training`` and return the trained model."""


@dataclass(frozen=True)
class Repaired:
    """A repair's answer.

    Attributes:
        model: a new model; the one that came in is unchanged.
        facts: JSON-ready facts for the record.
        inversions: what an inversion found, by claim (a label direction, ``1->0``); empty where the method inverts nothing.
    """

    model: WhiteBox
    facts: Mapping[str, object] = field(default_factory=dict)
    inversions: Mapping[str, Inverted] = field(default_factory=dict)


class Repair(Defense):
    """Acts on the trained model, with a small clean set."""

    family = "repair"
    inverts: ClassVar[bool] = False
    """Does it invert triggers and so accuse the model? The harness then runs it on the clean reference as well: what it finds
    there is what luck finds (the universal-adversarial null)."""

    def accuser(self) -> Repair:
        """The same inversion without the repair, where that is cheaper: what runs on clean models to calibrate verdicts."""
        return self

    @abstractmethod
    def repair(self, known: Known, task: TaskInfo, context: Context) -> Repaired:
        """Return a new, repaired model."""


class Action(Enum):
    """What a screen does with an input."""

    ACCEPT = "accept"
    REJECT = "reject"
    REWRITE = "rewrite"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A screen's answer for one input.

    Attributes:
        id: of the input.
        action: accept, reject, or rewrite.
        score: higher is more suspicious; finite.
        rewritten: the cleaned input (same id, same number of programs) when ``action`` is rewrite.
    """

    id: str
    action: Action
    score: float
    rewritten: Sample | None = None


class FittedScreen(ABC):
    """A screen after fitting. Stateless from call to call: verdicts depend on each input alone."""

    @abstractmethod
    def screen(self, inputs: Sequence[Sample]) -> list[Verdict]:
        """One verdict for each input, in order. Labels of inputs are hidden (``None``)."""


class Screen(Defense):
    """Acts on inputs, at inference."""

    family = "screen"

    @abstractmethod
    def fit(self, known: Known, task: TaskInfo, context: Context) -> FittedScreen:
        """Fit thresholds and language models on ``known.clean``."""


FAMILIES: Mapping[str, type[Plugin]] = {
    "task": Task,
    "attack": Attack,
    "filter": Filter,
    "training": TrainingRule,
    "repair": Repair,
    "screen": Screen,
}
DEFENSE_FAMILIES = ("filter", "training", "repair", "screen")
