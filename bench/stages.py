"""The stages of the pipeline: pure functions from stored parents and a seed to files in a folder.

A stage is described by JSON alone (kind, inputs, parents' keys), so it runs the same in this process, in a worker
process or on another machine, and its key tells everything that went into it.
"""

from __future__ import annotations

import json
import logging
import random
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch

from bench import models, outcomes
from bench.context import Context, Cost
from bench.contracts import (
    Access,
    Attack,
    Defense,
    Filter,
    Goal,
    Known,
    LabelGoal,
    Policy,
    Repair,
    Screen,
    SearchGoal,
    Task,
    TaskInfo,
    TaskKind,
    TrainingRule,
    Verdict,
)
from bench.errors import PluginError, StoreError
from bench.models.handles import WhiteBox
from bench.models.settings import ModelSettings, TrainingSettings
from bench.models.training import Trainer
from bench.plugins import Registry
from bench.poisoning import Poisoned, poison, training_order
from bench.predicting import predictions
from bench.samples import Sample, Splits, digest_of, input_digest
from bench.store import Entry, Store, write_json

STAGE_VERSIONS: Mapping[str, int] = {
    "data": 1,
    "poison": 1,
    "train": 1,
    "filter": 1,
    "repair": 1,
    "screen": 1,
    "predict": 1,
    "score": 1,
}
"""Raised with every change of a stage's behaviour, so that old results are not taken for new ones."""


@dataclass(frozen=True)
class Stage:
    """A node of the graph.

    Attributes:
        kind: one of :data:`STAGE_VERSIONS`.
        inputs: JSON-ready; with the parents, everything that decides the result.
        parents: role -> (kind, key) of the results it reads.
        label: for people; not part of the key.
        own: True when the stage belongs to one cell's defense, False when cells share it.
        tokens: a rough upper bound of the tokens through a model, for the cost estimate; not part of the key.
    """

    kind: str
    inputs: Mapping[str, Any]
    parents: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    label: str = ""
    own: bool = False
    tokens: int = 0

    @property
    def key(self) -> str:
        """sha256 of everything that decides the result."""
        return digest_of(self.identity())

    def identity(self) -> dict[str, Any]:
        """What the key is made of, to be read by ``codebackdoorbench why``."""
        return {
            "kind": self.kind,
            "version": STAGE_VERSIONS[self.kind],
            "inputs": self.inputs,
            "parents": {role: key for role, (_, key) in sorted(self.parents.items())},
        }


@dataclass
class Workshop:
    """What a process needs to run stages: the store, the plugins, and whether to draw progress."""

    store: Store
    registry: Registry
    show: bool = False


def run_stage(stage: Stage, workshop: Workshop) -> Entry:
    """Run one stage and publish its result; a published one is returned as it is.

    Raises:
        Exception: whatever a plugin raises; the caller records it.
    """
    store = workshop.store
    done = store.find(stage.kind, stage.key)
    if done is not None:
        return done
    parents = {role: store.get(kind, key) for role, (kind, key) in stage.parents.items()}
    started = time.perf_counter()
    with _numerics(stage.inputs.get("numerics", {"device": "cpu", "threads": 1})) as device:
        run = STAGES[stage.kind]
        entry = store.publish(
            stage.kind, stage.key, stage.identity(), lambda folder: run(Job(stage, parents, folder, workshop, device))
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    store.note_timing(stage.kind, stage.key, time.perf_counter() - started, peak)
    return entry


@contextmanager
def _numerics(numerics: Mapping[str, Any]) -> Iterator[torch.device]:
    """Fix whatever floating-point sums depend on; restore it afterwards."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(int(numerics["threads"]))
    torch.use_deterministic_algorithms(True, warn_only=True)
    states = (random.getstate(), torch.get_rng_state())
    try:
        yield torch.device(str(numerics["device"]))
    finally:
        random.setstate(states[0])
        torch.set_rng_state(states[1])
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)


@dataclass
class Job:
    """One execution of a stage: its parents' results, and the folder to fill."""

    stage: Stage
    parents: Mapping[str, Entry]
    folder: Path
    workshop: Workshop
    device: torch.device

    @property
    def inputs(self) -> Mapping[str, Any]:
        """The stage's inputs."""
        return self.stage.inputs

    def plugin(self, role: str) -> Any:
        """Build the plugin that stands under ``role`` in the inputs."""
        use = self.inputs[role]
        return self.workshop.registry.build(use["family"], use["name"], use["parameters"])

    @property
    def info(self) -> TaskInfo:
        """The task's public facts."""
        value = dict(self.inputs["info"])
        return TaskInfo(**{**value, "kind": TaskKind(value["kind"]), "labels": tuple(value["labels"])})

    @contextmanager
    def context(self) -> Iterator[Context]:
        """A context with the stage's seeds; its costs are written beside the result."""
        scratch = Path(tempfile.mkdtemp(prefix="codebackdoorbench-"))
        context = Context(
            seeds=dict(self.inputs["seeds"]),
            scratch=scratch,
            device=self.device,
            cost=Cost(),
            show=self.workshop.show,
            log=logging.getLogger("bench"),
        )
        try:
            yield context
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        cost = context.cost
        write_json(
            self.folder / "cost.json",
            {
                "forward_tokens": cost.forward_tokens,
                "backward_tokens": cost.backward_tokens,
                "forward_passes": cost.forward_passes,
            },
        )


# ------------------------------------------------------------------------------------------------------- files of stages


def write_samples(path: Path, samples: Sequence[Sample]) -> None:
    """JSON lines, in order."""
    with path.open("w", encoding="utf-8") as file:
        for sample in samples:
            file.write(json.dumps(sample.to_json(), sort_keys=True, ensure_ascii=False) + "\n")


def read_samples(path: Path) -> tuple[Sample, ...]:
    """Inverse of :func:`write_samples`."""
    with path.open(encoding="utf-8") as file:
        return tuple(Sample.from_json(json.loads(line)) for line in file)


def read_splits(entry: Entry) -> Splits:
    """The splits of a data stage."""
    parts = {name: read_samples(entry.folder / f"{name}.jsonl") for name in ("train", "valid", "budget", "test")}
    return Splits(**parts, notes=entry.json("notes.json"))


def read_poisoned(entry: Entry) -> Poisoned:
    """The result of a poison stage."""
    return Poisoned.from_json(entry.json("poisoned.json"))


def goal_json(goal: Goal) -> dict[str, Any]:
    """A goal, JSON-ready."""
    if isinstance(goal, SearchGoal):
        return {"word": goal.word}
    return {"victim": goal.victim, "target": goal.target}


def goal_from(value: Mapping[str, Any]) -> Goal:
    """Inverse of :func:`goal_json`."""
    return SearchGoal(**value) if "word" in value else LabelGoal(**value)


def load_model(entry: Entry, info: TaskInfo, context: Context) -> WhiteBox:
    """The model of a train or repair stage."""
    return models.load(entry.folder / "model", info, context.device, context.cost)


# ---------------------------------------------------------------------------------------------------------------- stages


def _data(job: Job) -> None:
    task = cast(Task, job.plugin("task"))
    with job.context() as context:
        splits = task.splits(context)
    for name, part in splits.parts().items():
        if not part and name != "budget":
            raise PluginError(f"task {task.name!r} gave an empty {name} split; raise its size or check its source")
        write_samples(job.folder / f"{name}.jsonl", part)
    write_json(job.folder / "notes.json", splits.notes)
    sizes = {name: len(part) for name, part in splits.parts().items()}
    write_json(job.folder / "facts.json", {"digest": splits.digest(), "sizes": sizes, "origin": job.inputs["origin"]})


def _poison(job: Job) -> None:
    splits = read_splits(job.parents["data"])
    attack = cast(Attack, job.plugin("attack"))
    goal, info = goal_from(job.inputs["goal"]), job.info
    with job.context() as context:
        trigger = attack.prepare(splits.train, goal, info, context)
        if trigger is None:
            raise PluginError(f"attack {attack.name!r} made no trigger; only the null attack may do that")
        result = poison(splits, trigger, goal, Policy(**job.inputs["policy"]), info, context)
    write_json(job.folder / "poisoned.json", result.to_json())


def _training_set(job: Job) -> tuple[Splits, tuple[Sample, ...], Poisoned | None]:
    splits = read_splits(job.parents["data"])
    poisoned = read_poisoned(job.parents["poison"]) if "poison" in job.parents else None
    train = training_order(splits.train) if poisoned is None else poisoned.train
    if "filter" in job.parents:
        table = outcomes.read_filter(job.parents["filter"].folder / "filter.parquet")
        kept = set(table.loc[table["keep"], "id"])
        train = tuple(s for s in train if s.id in kept)
    return splits, train, poisoned


def clean_samples(budget: Sequence[Sample], count: int, context: Context) -> tuple[Sample, ...]:
    """``count`` clean samples in a seeded order with classes interleaved, so that every prefix is stratified.

    Raises:
        PluginError: the budget split is smaller.
    """
    if count > len(budget):
        raise PluginError(
            f"the defense needs {count} clean samples and the task's budget split has {len(budget)}; raise the task's 'budget' parameter"
        )
    order = context.rng("defense", "clean").permutation(len(budget))
    by_class: dict[int | None, list[Sample]] = {}
    for index in order:
        by_class.setdefault(budget[index].label, []).append(budget[index])
    queues = [by_class[label] for label in sorted(by_class, key=lambda x: (x is None, x))]
    picked: list[Sample] = []
    position = 0
    while len(picked) < count:
        picked += [queue[position] for queue in queues if position < len(queue)]
        position += 1
    return tuple(picked[:count])


def _known(
    job: Job, defense: Defense, context: Context, model: WhiteBox | None, poisoned_inputs: bool = False
) -> Known:
    """Hand over what the defense declares, and nothing else."""
    needs = defense.needs
    splits, train, poisoned = _training_set(job)
    truth: frozenset[str] | None = None
    if needs.truth:
        if poisoned is None:
            truth = frozenset()
        elif poisoned_inputs:
            truth = frozenset(input_digest(s) for s in (*poisoned.triggered, *poisoned.reverse))
        else:
            truth = poisoned.poisoned
    rate = len(poisoned.poisoned) / len(poisoned.train) if poisoned is not None else 0.0
    return Known(
        needs=needs,
        _clean=clean_samples(splits.budget, needs.clean, context) if needs.clean else None,
        _training=train if needs.training_set else None,
        _model=None if needs.model is Access.NONE else model if needs.model is Access.WEIGHTS else _outputs_of(model),
        _goal=goal_from(job.inputs["goal"]) if needs.target_label and "goal" in job.inputs else None,
        _poison_rate=rate if needs.poison_rate else None,
        _poisoned=truth,
    )


def _outputs_of(model: WhiteBox | None) -> Any:
    """A handle that has no weights."""
    return None if model is None else model.outputs()


def _train(job: Job) -> None:
    splits, train, _ = _training_set(job)
    if not train:
        raise PluginError("the filter dropped the whole training set; nothing is left to train on")
    info = job.info
    with job.context() as context:
        settings = ModelSettings.model_validate(job.inputs["model"]["settings"])
        training = TrainingSettings.model_validate(job.inputs["training"])
        # The vocabulary of a model that makes its own comes from the clean split, as a pretrained one's would: reference
        # and victim then start from the same weights and differ in what they were trained on alone.
        model = models.create(job.inputs["model"]["name"], info, splits.train, settings, context)
        trainer = Trainer(training, splits.valid, context)
        context.trainer = trainer
        if "rule" in job.inputs:
            rule = cast(TrainingRule, job.plugin("rule"))
            trained = rule.train(model, _known(job, rule, context, None), info, context)
        else:
            trained = trainer.fit(model, train, axis="training")
        if not isinstance(trained, WhiteBox):
            raise PluginError(f"the training rule returned {type(trained).__name__}, not a model")
        trained.save(job.folder / "model")
        write_json(job.folder / "facts.json", {"history": trainer.history, "samples": len(train)})


def _filter(job: Job) -> None:
    defense = cast(Filter, job.plugin("defense"))
    with job.context() as context:
        model = load_model(job.parents["model"], job.info, context) if "model" in job.parents else None
        _, train, poisoned = _training_set(job)
        suspicion = defense.judge(_known(job, defense, context, model), job.info, context)
    n = len(train)
    for what, array in (("scores", suspicion.scores), ("keep", suspicion.keep)):
        if np.shape(array) != (n,):
            raise PluginError(f"filter {defense.name!r} returned {what} of shape {np.shape(array)} for {n} samples")
    if not np.isfinite(suspicion.scores).all():
        raise PluginError(f"filter {defense.name!r} returned a score that is not finite")
    truth = poisoned.poisoned if poisoned is not None else frozenset()
    table = pd.DataFrame(
        {
            "id": [s.id for s in train],
            "score": np.asarray(suspicion.scores, dtype=np.float64),
            "keep": np.asarray(suspicion.keep, dtype=bool),
            "poisoned": [s.id in truth for s in train],
        }
    )
    outcomes.write_filter(table, job.folder / "filter.parquet")


def _repair(job: Job) -> None:
    defense = cast(Repair, job.plugin("defense"))
    splits = read_splits(job.parents["data"])
    with job.context() as context:
        model = load_model(job.parents["model"], job.info, context)
        before = model.fingerprint()
        context.trainer = Trainer(TrainingSettings.model_validate(job.inputs["training"]), splits.valid, context)
        repaired = defense.repair(_known(job, defense, context, model), job.info, context)
        if model.fingerprint() != before:
            raise PluginError(f"repair {defense.name!r} changed the model that came in; work on model.copy()")
        repaired.model.save(job.folder / "model")
    try:
        write_json(job.folder / "facts.json", {"facts": dict(repaired.facts), "suspect": repaired.suspect})
    except (TypeError, ValueError) as error:
        raise PluginError(f"repair {defense.name!r} returned facts that are not JSON-ready: {error}") from error


def inputs_by_part(splits: Splits, poisoned: Poisoned | None) -> dict[str, tuple[Sample, ...]]:
    """The test inputs of a cell, by part."""
    parts = {"clean": splits.test}
    if poisoned is not None:
        parts |= {"triggered": poisoned.triggered, "reverse": poisoned.reverse}
    return parts


def _hidden(sample: Sample) -> Sample:
    """What a screen may see of an input: no label, no group."""
    return Sample(sample.id, sample.programs, sample.language, None, sample.query, "")


def _screen(job: Job) -> None:
    defense = cast(Screen, job.plugin("defense"))
    splits, _, poisoned = _training_set(job)
    with job.context() as context:
        model = load_model(job.parents["model"], job.info, context) if "model" in job.parents else None
        fitted = defense.fit(_known(job, defense, context, model, poisoned_inputs=True), job.info, context)
        rows: list[dict[str, Any]] = []
        for part, samples in inputs_by_part(splits, poisoned).items():
            inputs = [_hidden(s) for s in samples]
            verdicts = fitted.screen(inputs)
            _check_verdicts(defense.name, inputs, verdicts)
            rows += [_verdict_row(part, v) for v in verdicts]
    with (job.folder / "verdicts.jsonl").open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, sort_keys=True, ensure_ascii=False) + "\n")


def _check_verdicts(name: str, inputs: Sequence[Sample], verdicts: Sequence[Verdict]) -> None:
    if [v.id for v in verdicts] != [s.id for s in inputs]:
        raise PluginError(
            f"screen {name!r} must give one verdict for each input, in order: {len(inputs)} in, {len(verdicts)} out"
        )
    for verdict, sample in zip(verdicts, inputs, strict=True):
        rewritten = verdict.rewritten
        if (verdict.action.value == "rewrite") != (rewritten is not None):
            raise PluginError(
                f"screen {name!r}, input {verdict.id!r}: 'rewritten' goes with the action 'rewrite', and only with it"
            )
        if rewritten is not None and (rewritten.id, len(rewritten.programs)) != (sample.id, len(sample.programs)):
            raise PluginError(
                f"screen {name!r}, input {verdict.id!r}: a rewritten input keeps its id and its number of programs"
            )
        if not np.isfinite(verdict.score):
            raise PluginError(f"screen {name!r}, input {verdict.id!r}: the score is not finite")


def _verdict_row(part: str, verdict: Verdict) -> dict[str, Any]:
    programs = list(verdict.rewritten.programs) if verdict.rewritten is not None else None
    return {
        "part": part,
        "id": verdict.id,
        "action": verdict.action.value,
        "score": float(verdict.score),
        "programs": programs,
    }


def _predict(job: Job) -> None:
    splits = read_splits(job.parents["data"])
    poisoned = read_poisoned(job.parents["poison"]) if "poison" in job.parents else None
    verdicts: dict[tuple[str, str], dict[str, Any]] = {}
    if "screen" in job.parents:
        with (job.parents["screen"].folder / "verdicts.jsonl").open(encoding="utf-8") as file:
            for line in file:
                row = json.loads(line)
                verdicts[row["part"], row["id"]] = row
    goal = goal_from(job.inputs["goal"]) if "goal" in job.inputs else None
    with job.context() as context:
        model = load_model(job.parents["model"], job.info, context)
        table, facts = predictions(model, inputs_by_part(splits, poisoned), poisoned, goal, verdicts)
    table.to_parquet(job.folder / "predictions.parquet", index=False)
    write_json(job.folder / "facts.json", facts)


def _score(job: Job) -> None:
    from bench.scoring import score

    try:
        score(job)
    except OSError as error:
        raise StoreError(f"cannot score {job.stage.label}: {error}") from error


STAGES: Mapping[str, Callable[[Job], None]] = {
    "data": _data,
    "poison": _poison,
    "train": _train,
    "filter": _filter,
    "repair": _repair,
    "screen": _screen,
    "predict": _predict,
    "score": _score,
}
