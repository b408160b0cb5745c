"""What a stage is, what one execution of it holds, and the files that stages read and write.

A stage is described by JSON alone (kind, inputs, parents' keys), so it runs the same in this process, in a worker
process or on another machine, and its key tells everything that went into it.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from bench import models
from bench.context import Context, Cost
from bench.contracts import Goal, LabelGoal, Plugin, SearchGoal, TaskInfo, TaskKind
from bench.errors import DataError, PluginError, ResultLost
from bench.models.handles import WhiteBox
from bench.plugins import Registry, parameters_of, source_of
from bench.poisoning import Poisoned
from bench.samples import Sample, Splits, digest_of
from bench.seals import Seal, seal_of
from bench.store import MANIFEST, Entry, Store, write_json

STAGE_VERSIONS: Mapping[str, int] = {
    "data": 1,
    "poison": 2,
    "supply": 1,
    "train": 1,
    "filter": 1,
    "repair": 2,
    "screen": 1,
    "predict": 1,
    "score": 3,
    "stealth": 1,
    "reach": 1,
}
"""Raised with every change of a stage's behaviour, so that old results are not taken for new ones."""

DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Stage:
    """A node of the graph.

    Attributes:
        kind: one of :data:`STAGE_VERSIONS`.
        inputs: JSON-ready; with the parents, everything that decides the result.
        parents: role -> (kind, key) of the results it reads.
        label: for people; not part of the key.
        own: True when the stage belongs to one cell's defense, False when cells share it.
        tokens: roughly how much goes through a model, by which a run starts long chains first; not part of the key. What a plan tells is
            another estimate (:mod:`bench.estimating`).
        model: tells apart what needs different amounts of memory: the model, its window, its batches and the task; not part of the key.
    """

    kind: str
    inputs: Mapping[str, Any]
    parents: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    label: str = ""
    own: bool = False
    tokens: int = 0
    model: str = ""

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


@dataclass
class Job:
    """One execution of a stage: its parents' results, and the folder to fill."""

    stage: Stage
    parents: Mapping[str, Entry]
    folder: Path
    workshop: Workshop
    device: torch.device

    def __post_init__(self) -> None:
        self._sealed = {role: _seal(entry) for role, entry in self.parents.items()}
        self._built: list[tuple[Plugin, Mapping[str, str]]] = []

    def check_parents(self) -> None:
        """See that the stage left the results that it read as they were.

        Raises:
            PluginError: somebody wrote into one; that result is checked again, and made again where it is damaged.
            ResultLost: one is gone: another process found it damaged and moved it aside, or pruned it.
        """
        for role, entry in self.parents.items():
            if not entry.folder.is_dir():
                raise ResultLost(
                    f"the {entry.kind} result {entry.key[:12]} was taken out of the store {self.workshop.store.root} while a stage "
                    "read it; run the suite again to make it",
                    entry.kind,
                    entry.key,
                )
            if _seal(entry) != self._sealed[role]:
                self.workshop.store.forget(entry)
                raise PluginError(
                    f"this stage's plugin, or one that ran beside it, wrote into a stored {entry.kind} result ({entry.folder}); plugins "
                    "write to context.scratch alone. What was written into is checked again before it is used, and made again where it "
                    "is damaged."
                )

    @property
    def inputs(self) -> Mapping[str, Any]:
        """The stage's inputs."""
        return self.stage.inputs

    def plugin(self, role: str) -> Any:
        """Build the plugin that stands under ``role`` in the inputs."""
        return self.build(self.inputs[role])

    def build(self, use: Mapping[str, Any]) -> Any:
        """Build a plugin from its family, name and parameters.

        Raises:
            PluginError: it comes from a file outside the tree that is not the one in the key: it was edited while the run was under way.
            DataError: what it takes from elsewhere is not what stands in the key.
        """
        plugin = self.workshop.registry.build(use["family"], use["name"], use["parameters"])
        if "source" in use and source_of(plugin) != use["source"]:
            raise PluginError(
                f"{plugin.family} {plugin.name!r}: its file was edited after this run was planned. Run again: the new one is another key"
            )
        # A task's stands beside it in the inputs of its data, not in it.
        origin = self.inputs.get("origin", {}) if plugin.family == "task" else use.get("origin", {})
        _check_origin(plugin, origin)
        self._built.append((plugin, origin))
        return plugin

    def check_origins(self) -> None:
        """See that what the plugins take from elsewhere is still what the key was made of: it may have been replaced while it was read.

        Raises:
            DataError: it is not.
        """
        for plugin, origin in self._built:
            _check_origin(plugin, origin)

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


def _check_origin(plugin: Plugin, stated: Mapping[str, str]) -> None:
    """See that a plugin's data, model folder or packages are those that its key names.

    Raises:
        DataError: they are not: they were replaced after the run was planned, or this machine has others.
    """
    found = dict(plugin.origin())
    if digest_of(found) == digest_of(dict(stated)):
        return
    name, *more = sorted(name for name in {*stated, *found} if found.get(name) != stated.get(name))
    parameters = parameters_of(plugin)
    # Of a task it is a file in its folder, or a package; of others the parameter that names a model's folder.
    place = parameters.get(name, parameters.get("path"))
    others = f" (and {len(more)} more)" if more else ""
    raise DataError(
        f"{plugin.family} {plugin.name!r}{f', {place}' if place is not None else ''}: {name}{others} is not what this run was planned with "
        f"(planned: {_shown(stated.get(name))}, here: {_shown(found.get(name))}): it was replaced since, or this machine has another. Put "
        "the planned one there, or run again: another is another key."
    )


def _shown(told: str | None) -> str:
    """A version as it is, a digest by its first digits."""
    if told is None:
        return "none"
    return f"sha256 {told[:12]}" if DIGEST.fullmatch(told) else told


# --------------------------------------------------------------------------------------------------------------- files


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


def _seal(entry: Entry) -> Seal | None:
    """Size and times of an entry's files, and of its folders: a file more is seen too."""
    folders = {str(parent) for name in entry.files for parent in PurePosixPath(name).parents}
    return seal_of(entry.folder, sorted({MANIFEST, *entry.files, *folders}))


def unfit_weights(model: WhiteBox) -> list[str]:
    """Names of weight tensors that are not finite."""
    return [name for name, weight in model.network.state_dict().items() if not bool(torch.isfinite(weight).all())]


def save_model(model: WhiteBox, folder: Path, maker: str) -> None:
    """Write a stage's model.

    Raises:
        PluginError: a weight is not finite.
    """
    broken = unfit_weights(model)
    if broken:
        raise PluginError(
            f"{maker} left {len(broken)} weight tensors that are not finite (NaN or infinite), the first is {broken[0]!r}: what it "
            "trained diverged. Lower its learning rate, or that of the suite's training where it has none of its own."
        )
    model.save(folder / "model")


def load_model(entry: Entry, info: TaskInfo, context: Context) -> WhiteBox:
    """The model of a train or repair stage."""
    return models.load(entry.folder / "model", info, context.device, context.cost)
