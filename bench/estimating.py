"""How much a stage will compute before it has run: tokens forward and back, and seconds.

Two sources, in this order. **Measured**: the same work is in this store for other seeds or attacks (same kind, inputs but for
seeds, data and model); its mean counters and median seconds are taken. **Bound**: otherwise the most that the sizes allow, every text
as long as the model's window. Real texts are shorter, and searches stop early: a bound is that and no forecast. Where a method's
own loop is not known here, nothing is told, and the sum says that it is *at least* what it is.

The convention of all sums: a *pass* is one token forward through the model, a token back counts as two, so that a token trained
costs three passes.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from bench.composing import inverts
from bench.contracts import Access, Defense, TaskKind
from bench.errors import BenchError
from bench.jobs import Stage
from bench.plugins import Registry
from bench.samples import digest_of
from bench.store import MANIFEST, Store
from bench.suite import CellPlan
from tasks.sources.sizes import PUBLISHED_TEST, PUBLISHED_VALID

Source = Literal["measured", "bound", "unknown"]
BACKWARD: Final = 2
"""Passes of a token that goes back."""
WITHOUT_MODEL: Final = ("data", "stealth", "score")
"""Kinds of stages through which no token goes."""
AS_TRAINING: Final = ("dece", "label_smoothing", "normalise", "oracle")
"""Training rules that train as the harness does, on as many samples or fewer."""
ONE_READING: Final = ("activation_clustering", "spectral_signatures", "cube")
"""Filters that read the training set once."""
RATES_TRIED: Final = 3
"""Learning rates of which unlearning chooses one."""


@dataclass(frozen=True, slots=True)
class Work:
    """Tokens through a model, padding included."""

    forward: float = 0.0
    backward: float = 0.0

    @property
    def passes(self) -> float:
        """Forward passes of a token; one back counts as two."""
        return self.forward + BACKWARD * self.backward

    def __add__(self, other: Work) -> Work:
        return Work(self.forward + other.forward, self.backward + other.backward)

    def __mul__(self, factor: float) -> Work:
        return Work(self.forward * factor, self.backward * factor)


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a stage will compute, where that was read, and how long the same work took here."""

    work: Work | None
    source: Source
    seconds: float | None = None
    """Median of the same work in this store; ``None`` where there is none."""


def tokens_a_sample(plan: CellPlan) -> int:
    """The most that one sample sends through the model: a window, two for a pair, with the query's for code search."""
    settings = plan.model_settings
    kind = plan.task.info.kind
    if kind is TaskKind.PAIRS:
        return 2 * settings.window
    return settings.window + (settings.query_window if kind is TaskKind.SEARCH else 0)


def training_tokens(plan: CellPlan) -> int:
    """The most that one training sends forward (and back again): samples x tokens of a sample x epochs; 0 where nobody knows."""
    return int((plan.task.training_samples or 0) * tokens_a_sample(plan) * plan.training.epochs)


def sizes_of(plan: CellPlan, stored: Mapping[str, int] | None = None) -> dict[str, int | None]:
    """Samples by split: as they lie in the store, else as the task asks for or its source publishes; ``None``: not known unread."""
    if stored is not None:
        return dict(stored)
    task = plan.task
    source = str(getattr(task, "source", ""))
    source = f"{source}/{getattr(task, 'language', '')}" if source == "codesearchnet" else source
    published = {"valid": PUBLISHED_VALID, "test": PUBLISHED_TEST}
    found: dict[str, int | None] = {"train": task.training_samples}
    for split, known in published.items():
        asked = getattr(task, split, None)
        found[split] = asked if isinstance(asked, int) else known.get(source)
    return found


class Estimator:
    """Estimates the stages of a suite.

    Args:
        stages: of the suite, by key.
        plans: key of a stage -> a cell that it is part of.
        registry: builds the defenses whose parameters tell how long they search.
        store: where the same work may have been measured.
    """

    def __init__(
        self, stages: Mapping[str, Stage], plans: Mapping[str, CellPlan], registry: Registry, store: Store
    ) -> None:
        self._stages, self._plans, self._registry = stages, plans, registry
        self._measured = Measured.of(store)
        self._sizes: dict[str, Mapping[str, int] | None] = {}
        self._store = store

    def estimate(self, stage: Stage) -> Estimate:
        """What is known of a stage's work."""
        same = self._measured.like(self._signature(stage))
        if same is not None:
            return same
        bound = self.bound(stage)
        return Estimate(bound, "unknown" if bound is None else "bound")

    def rate(self, stage: Stage) -> float | None:
        """Passes a second of stages of this kind with this model on this device, as measured in this store."""
        return self._measured.rates.get((stage.kind, *self._model(stage)))

    def bound(self, stage: Stage) -> Work | None:
        """The most that the sizes allow; ``None`` where the method's own loop is not known here."""
        if stage.kind in WITHOUT_MODEL or (stage.kind == "poison" and "numerics" not in stage.inputs):
            return Work()
        plan = self._plans[stage.key]
        sizes, each = self._split_sizes(stage, plan), float(tokens_a_sample(plan))
        if stage.kind == "train":
            rule = stage.inputs.get("rule")
            known = rule is None or rule["name"] in AS_TRAINING
            return _training(plan, sizes, each) if known else None
        if stage.kind in ("predict", "reach"):
            return _answers(stage, plan, sizes, each)
        if stage.kind in ("filter", "repair", "screen"):
            return self._defense(stage, plan, sizes, each)
        return None

    def _defense(self, stage: Stage, plan: CellPlan, sizes: Mapping[str, int | None], each: float) -> Work | None:
        use = stage.inputs["defense"]
        try:
            built = self._registry.build(use["family"], use["name"], use["parameters"])
        except BenchError:
            return None
        assert isinstance(built, Defense)
        train, test, clean = sizes.get("train"), sizes.get("test"), float(built.needs.clean)
        own_model = {getattr(built, name, None) for name in ("model", "validator")} - {None, "ngram", "none"}
        if own_model:
            return None  # a language model of its own, which is not this cell's
        name = f"{built.family}/{built.name}"
        if built.needs.model is Access.NONE or name == "repair/random":
            return Work()
        if built.family == "filter":
            return Work(train * each) if built.name in ONE_READING and train is not None else None
        trained = Work(each, each)
        parameters = use["parameters"]
        epochs = float(parameters.get("epochs") or 0)
        teacher = float(parameters.get("teacher_epochs") or 0)
        if name == "repair/fine_tuning":
            return trained * (clean * epochs)
        if name == "repair/oracle":
            return trained * (train * (epochs or plan.training.epochs)) if train is not None else None
        if name == "repair/nad":
            # The teacher reads every batch of the student's once more.
            return trained * (clean * (teacher + epochs)) + Work(each) * (clean * epochs)
        if name in ("repair/elibadcode", "repair/dbs") and inverts(built):
            return _inversion(built, plan, each, clean)
        if name == "screen/attdef" and test is not None:
            # A pass to answer, and the integration; of clean inputs to set the threshold, and of all test inputs.
            return (trained * float(parameters["steps"]) + Work(2 * each)) * (clean + _inputs(stage, plan) * test)
        return None

    def _split_sizes(self, stage: Stage, plan: CellPlan) -> dict[str, int | None]:
        key = stage.parents["data"][1]
        if key not in self._sizes:
            entry = self._store.find("data", key)
            self._sizes[key] = None if entry is None else entry.json("facts.json")["sizes"]
        return sizes_of(plan, self._sizes[key])

    def _signature(self, stage: Stage) -> str:
        data = stage.parents.get("data", ("", ""))[1]
        return _signature(stage.kind, stage.inputs, stage.parents, data, self._model(stage)[0])

    def _model(self, stage: Stage) -> tuple[str, str]:
        """(the model, the device and its settings), as text."""
        inputs = stage.inputs
        while "model" not in inputs and "model" in stage.parents and stage.parents["model"][1] in self._stages:
            stage = self._stages[stage.parents["model"][1]]
            inputs = stage.inputs
        return _text(inputs.get("model")), _text(inputs.get("numerics"))


def _training(plan: CellPlan, sizes: Mapping[str, int | None], each: float) -> Work | None:
    train, epochs = sizes.get("train"), plan.training.epochs
    if train is None:
        return None
    # The validation split is read after every epoch.
    return Work(each, each) * (train * epochs) + Work(each) * ((sizes.get("valid") or 0) * epochs)


def _inputs(stage: Stage, plan: CellPlan) -> int:
    """Test inputs of a cell, in test splits: clean, and each sample once more with the trigger (search: every program)."""
    return 2 if "poison" in stage.parents else 1


def _answers(stage: Stage, plan: CellPlan, sizes: Mapping[str, int | None], each: float) -> Work | None:
    test = sizes.get("test")
    if test is None:
        return None
    if stage.kind == "predict":
        return Work(each) * (_inputs(stage, plan) * test)
    # Two controls, asked of victim and reference; in search beside the clean programs.
    return Work(each) * (4 * test * (2 if plan.task.info.kind is TaskKind.SEARCH else 1))


def _inversion(built: Defense, plan: CellPlan, each: float, clean: float) -> Work:
    """Every direction for all of its iterations, and unlearning at every rate that may be tried.

    Finding a place for the trigger and dropping tokens of it cost a few passes more, which are not counted.
    """
    parameters = {name: getattr(built, name, None) for name in ("iterations", "victims", "width", "starts", "epochs")}
    victims, iterations = float(parameters["victims"] or 0), float(parameters["iterations"] or 0)
    width = parameters["width"]
    # A step of the search: one gradient, and every candidate on every sample (a relaxed search scores its best as it goes). Towards a word
    # the vectors are computed once without a gradient, and once more to carry it back.
    again = Work(each) if plan.task.info.kind is TaskKind.SEARCH else Work()
    step = Work(each, each) + again + Work(each) * float(width if isinstance(width, int) else 1)
    labels = len(plan.task.info.labels)
    claims = labels * (labels - 1) if labels else 1
    searched = (step * iterations + Work(each) * float(parameters["starts"] or 0)) * (victims * claims)
    lessons = 3.0 if parameters["epochs"] is None else float(parameters["epochs"])
    return searched + Work(each, each) * (2 * clean * lessons * RATES_TRIED) + Work(each) * (2 * clean * RATES_TRIED)


# -------------------------------------------------------------------------------------------------------- what was measured


@dataclass(frozen=True)
class Measured:
    """Counters and seconds of the work that lies in a store.

    Attributes:
        same: signature of a stage -> (work, seconds or ``None``) of each that has it.
        rates: (kind, model, numerics) -> passes a second.
    """

    same: Mapping[str, Sequence[tuple[Work, float | None]]] = field(default_factory=dict)
    rates: Mapping[tuple[str, str, str], float] = field(default_factory=dict)

    def like(self, signature: str) -> Estimate | None:
        """The mean of the same work; ``None`` where there is none."""
        found = self.same.get(signature)
        if not found:
            return None
        total = sum((work for work, _ in found), Work())
        seconds = [taken for _, taken in found if taken is not None]
        return Estimate(total * (1 / len(found)), "measured", statistics.median(seconds) if seconds else None)

    @classmethod
    def of(cls, store: Store) -> Measured:
        """Read a store's counters; what cannot be read is left out."""
        read = {}
        for path in (store.root / "entries").glob(f"*/*/{MANIFEST}"):
            if path.parts[-3] in WITHOUT_MODEL:
                continue
            try:
                value, cost = json.loads(path.read_bytes()), json.loads((path.parent / "cost.json").read_bytes())
                work = Work(float(cost["forward_tokens"]), float(cost["backward_tokens"]))
                read[str(value["key"])] = (str(value["kind"]), value["inputs"], work)
            except (OSError, ValueError, KeyError, TypeError):
                continue
        same: dict[str, list[tuple[Work, float | None]]] = {}
        passes: dict[tuple[str, str, str], list[float]] = {}
        for key, (kind, identity, work) in read.items():
            inputs, parents = identity["inputs"], identity["parents"]
            model, numerics = cls._model(identity, read)
            seconds = _seconds(store, key)
            signature = _signature(kind, inputs, parents, parents.get("data", ""), model)
            same.setdefault(signature, []).append((work, seconds))
            if seconds:
                rate = passes.setdefault((kind, model, numerics), [0.0, 0.0])
                rate[0] += work.passes
                rate[1] += seconds
        return cls(same, {place: done / taken for place, (done, taken) in passes.items() if done})

    @staticmethod
    def _model(identity: Mapping[str, Any], read: Mapping[str, Any]) -> tuple[str, str]:
        while "model" not in identity["inputs"] and identity["parents"].get("model") in read:
            identity = read[identity["parents"]["model"]][1]
        return _text(identity["inputs"].get("model")), _text(identity["inputs"].get("numerics"))


def _seconds(store: Store, key: str) -> float | None:
    try:
        return float(json.loads((store.root / "timings" / f"{key}.json").read_text(encoding="utf-8"))["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _signature(kind: str, inputs: Mapping[str, Any], roles: Iterable[str], data: str, model: str) -> str:
    """What work of a kind is the same but for its seeds: another seed's, or another attack's on the same data and model.

    The roles of the parents tell a clean model's test inputs from an attacked one's, and whether a screen stands before it.
    """
    asked = {name: value for name, value in inputs.items() if name not in ("seeds", "goal")}
    return digest_of([kind, asked, sorted(roles), data, model])


def _text(value: object) -> str:
    return json.dumps(value, sort_keys=True)


def total(estimates: Iterable[Estimate], source: Source) -> Work:
    """The sum of those from one source."""
    return sum((each.work for each in estimates if each.source == source and each.work is not None), Work())
