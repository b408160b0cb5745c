"""A suite: a YAML file that names the axes of a matrix of cells, and the settings they share.

Everything is checked before anything runs: unknown keys, plugins and parameters are errors with a suggestion.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from bench.composing import FAMILY, Composition, accuser, inverts
from bench.contracts import Attack, Defense, Goal, LabelGoal, Policy, SearchGoal, Supplier, Task, TaskKind
from bench.errors import ConfigError, suggest
from bench.models.precision import Precision
from bench.models.presets import filled
from bench.models.settings import ModelSettings, TrainingSettings
from bench.plugins import Registry, parameters_of
from bench.records import Coordinates, PluginUse
from bench.suite_files import suite_file
from bench.verdicts import FALSE_ALARMS


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Entry(_Strict):
    """A plugin as a suite names it: ``dead_code``, ``dead_code[variant=grammar]`` or a mapping."""

    name: str
    label: str = ""
    parameters: dict[str, Any] = Field(default_factory=dict)

    @field_validator("parameters")
    @classmethod
    def _plain(cls, value: dict[str, Any]) -> dict[str, Any]:
        for key, given in value.items():
            try:
                json.dumps(given)
            except (TypeError, ValueError) as error:  # YAML reads 2024-01-01 as a date
                raise ValueError(
                    f"parameter {key} is {given!r}, which is no JSON; put it in quotes if it is a text"
                ) from error
        return value

    @classmethod
    def parse(cls, value: Any) -> Any:
        """A name, a name with parameters in brackets, or a mapping, as a mapping."""
        if not isinstance(value, str):
            return value
        match = re.fullmatch(r"([\w./-]+)(?:\[(.*)\])?", value.strip())
        if match is None:
            raise ValueError(f"{value!r} is not a plugin; write NAME or NAME[parameter=value, …]")
        parameters: dict[str, Any] = {}
        for part in filter(None, (p.strip() for p in (match[2] or "").split(","))):
            key, equals, text = part.partition("=")
            if not equals:
                raise ValueError(f"{part!r} in {value!r} is not of the form parameter=value")
            try:
                parameters[key.strip()] = yaml.safe_load(text)
            except (yaml.YAMLError, ValueError, RecursionError) as error:
                raise ValueError(f"{text!r} in {value!r} is no value that YAML knows") from error
        return {"name": match[1], "parameters": parameters}

    @property
    def title(self) -> str:
        """What the board and file names call it."""
        if self.label:
            return self.label
        if not self.parameters:
            return self.name
        inside = ",".join(f"{k}={json.dumps(v).strip(chr(34))}" for k, v in sorted(self.parameters.items()))
        return f"{self.name}[{inside}]"


class TaskEntry(Entry):
    """A task, with what it changes of the suite's training and of every attack's policy."""

    training: dict[str, Any] = Field(default_factory=dict)
    policy: dict[str, Any] = Field(default_factory=dict)


class _AnyPart(_Strict):
    """A part of the matrix, by titles; an axis that is not named is taken whole."""

    task: tuple[str, ...] = ()
    defense: tuple[str, ...] = ()
    seed: tuple[int, ...] = ()

    def holds(self, at: Coordinates, calibration: bool) -> bool:
        """Is a cell in it? Clean models that calibrate have seeds of their own."""
        named = [(getattr(self, axis), getattr(at, axis)) for axis in type(self).model_fields if axis != "seed"]
        return all(not wanted or title in wanted for wanted, title in named) and (
            not self.seed or calibration or at.seed in self.seed
        )


class Part(_AnyPart):
    """What a model keeps to."""

    attack: tuple[str, ...] = ()


class AttackPart(_AnyPart):
    """What an attack keeps to."""

    model: tuple[str, ...] = ()


class TrainingEntry(_Strict):
    """Training settings of some tasks with some models, by titles; an axis that is not named is taken whole."""

    task: tuple[str, ...] = ()
    model: tuple[str, ...] = ()
    training: dict[str, Any]

    def holds(self, task: str, model: str) -> bool:
        """Is it about this task with this model?"""
        return (not self.task or task in self.task) and (not self.model or model in self.model)


class ModelEntry(Entry):
    """A model: an own name (``tiny``, ``minilm``, a preset's), a hub name or a folder; parameters are :class:`ModelSettings`.

    ``only`` keeps a model that costs much to a part of the matrix.
    """

    training: dict[str, Any] = Field(default_factory=dict)
    only: Part = Part()


class DefenseEntry(Entry):
    """A defense, or several that act together (:mod:`bench.composing`): ``a + b``, or a mapping with ``parts``."""

    parts: tuple[Entry, ...] = ()

    @field_validator("parts", mode="before")
    @classmethod
    def _parts(cls, value: Any) -> Any:
        return [Entry.parse(item) for item in value] if isinstance(value, list | tuple) else value

    @model_validator(mode="after")
    def _either(self) -> DefenseEntry:
        if self.parts and (self.name != FAMILY or self.parameters):
            raise ValueError(f"a composition has the name {FAMILY!r} and no parameters of its own; its parts have")
        return self

    @classmethod
    def parse(cls, value: Any) -> Any:
        """As :meth:`Entry.parse`; ``a + b`` and a mapping with ``parts`` are compositions."""
        if isinstance(value, str) and re.search(r"\s\+\s", value):
            return {"name": FAMILY, "parts": re.split(r"\s+\+\s+", value.strip())}
        if isinstance(value, Mapping) and value.get("parts"):
            return {"name": FAMILY, **value}
        return Entry.parse(value)

    @property
    def title(self) -> str:
        """The label, or the parts' titles."""
        return self.label or " + ".join(p.title for p in self.parts) or super().title


class AttackEntry(Entry):
    """An attack, with its policy and goal where they differ from the attack's and task's own.

    ``only`` keeps it to a part of the matrix: the same attack may be published in another form for another task.
    """

    policy: dict[str, Any] | None = None
    goal: dict[str, Any] | None = None
    only: AttackPart = AttackPart()


class Suite(_Strict):
    """The axes and the shared settings. ``threads`` is part of every key: sums in floating point depend on it."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    description: str = ""
    tasks: tuple[TaskEntry, ...] = Field(min_length=1)
    models: tuple[ModelEntry, ...] = Field(min_length=1)
    attacks: tuple[AttackEntry, ...] = Field(min_length=1)
    defenses: tuple[DefenseEntry, ...] = Field(min_length=1)
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    calibration_seeds: tuple[int, ...] = ()
    """More training seeds at which every inverting defense runs on the clean model alone (attack ``none``), so that a verdict has
    clean models to compare with (:mod:`bench.verdicts`). No number of the board is made from them."""
    calibrated: tuple[str, ...] = ()
    """Titles of the defenses that run at ``calibration_seeds``; empty means every inverting one."""
    false_alarms: float = Field(default=FALSE_ALARMS, gt=0, lt=1)
    """The share of clean models that a verdict may convict."""
    data_seed: int = 0
    training: dict[str, Any] = Field(default_factory=dict)
    """Of every model; the training of a model wins over it, that of a task over both."""
    trainings: tuple[TrainingEntry, ...] = ()
    """Training of some (task, model) alone, which wins over all others; of several that hold the same key, the last."""
    threads: int = Field(default=1, ge=1)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Precision = "auto"
    """What models compute in; weights are float32 always."""
    stage_seconds: float | None = Field(default=None, gt=0)
    """A stage that takes longer is stopped and recorded as failed."""
    margin: float = Field(default=0.02, gt=0, lt=1)
    """Non-inferiority margin of the clean metric."""
    plugins: tuple[str, ...] = ()
    """Plugin files outside the tree, relative to the suite file."""

    @field_validator("tasks", "models", "attacks", mode="before")
    @classmethod
    def _entries(cls, value: Any) -> Any:
        return [Entry.parse(item) for item in value] if isinstance(value, list | tuple) else value

    @field_validator("defenses", mode="before")
    @classmethod
    def _defenses(cls, value: Any) -> Any:
        return [DefenseEntry.parse(item) for item in value] if isinstance(value, list | tuple) else value

    @model_validator(mode="after")
    def _known(self) -> Suite:
        there: dict[str, list[str] | list[int]] = {
            "task": [entry.title for entry in self.tasks],
            "model": [entry.title for entry in self.models],
            "attack": [entry.title for entry in self.attacks],
            "defense": [entry.title for entry in self.defenses],
            "seed": list(self.seeds),
        }
        parts: list[tuple[str, BaseModel]] = [
            *((f"model {entry.title!r}, only", entry.only) for entry in self.models),
            *((f"attack {entry.title!r}, only", entry.only) for entry in self.attacks),
            *((f"trainings, entry {number}", entry) for number, entry in enumerate(self.trainings, start=1)),
        ]
        for where, part in parts:
            for axis in there.keys() & type(part).model_fields.keys():
                for wanted in getattr(part, axis):
                    if wanted not in there[axis]:
                        hint = suggest(str(wanted), [str(title) for title in there[axis]])
                        raise ValueError(f"{where}: the suite has no {axis} {wanted!r}.{hint}")
        return self

    @model_validator(mode="after")
    def _apart(self) -> Suite:
        both = sorted(set(self.seeds) & set(self.calibration_seeds))
        if both:
            raise ValueError(
                f"seeds and calibration_seeds share {', '.join(map(str, both))}: the clean models of 'seeds' calibrate already; "
                "choose other calibration seeds"
            )
        return self


def load_suite(name: str | Path) -> Suite:
    """Read a suite by path, or by name from ``results/suites``.

    Raises:
        ConfigError: the file is missing, is not YAML, or has unknown or wrong keys; names file and key.
    """
    path = suite_file(name)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read suite file {path}: {error.strerror}") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: not UTF-8, or a date that is none
        raise ConfigError(f"suite file {path} is not valid YAML: {error}") from error
    except RecursionError as error:
        raise ConfigError(f"suite file {path} is nested too deeply") from error
    if not isinstance(content, dict):
        raise ConfigError(f"suite file {path} must hold a mapping with keys {', '.join(Suite.model_fields)}")
    suite = parse_suite(content, str(path))
    if suite.plugins:
        files = tuple(str((path.parent / p).resolve()) for p in suite.plugins)
        suite = suite.model_copy(update={"plugins": files})
    return suite


def parse_suite(content: Mapping[str, Any], origin: str) -> Suite:
    """Check a suite's content.

    Raises:
        ConfigError: names origin and key, and suggests.
    """
    try:
        return Suite.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        message = first["msg"]
        if first["type"] == "extra_forbidden":
            owner: type[BaseModel] = Suite
            if len(first["loc"]) > 1:
                kinds: dict[str, type[BaseModel]] = {
                    "tasks": TaskEntry,
                    "models": ModelEntry,
                    "attacks": AttackEntry,
                    "defenses": DefenseEntry,
                    "trainings": TrainingEntry,
                }
                owner = kinds.get(str(first["loc"][0]), Entry)
            message = f"unknown key.{suggest(str(first['loc'][-1]), owner.model_fields)}"
        raise ConfigError(f"{origin}, {where or 'top level'}: {message}") from error


@dataclass(frozen=True)
class CellPlan:
    """One cell with everything built and checked. ``defense`` is ``None`` for the null defense."""

    suite: str
    coordinates: Coordinates
    task: Task
    attack: Attack | None
    defense: Defense | None
    model_name: str
    model_settings: ModelSettings
    training: TrainingSettings
    goal: Goal
    policy: Policy | None
    uses: Mapping[str, PluginUse]
    seeds: Mapping[str, int]
    not_applicable: str | None
    parts: tuple[Attack, ...] = ()
    """The other attacks that the attack is made of."""
    calibration: bool = False
    """It is there to calibrate verdicts alone."""


def _use(registry: Registry, plugin: Task | Attack | Defense, given: Mapping[str, Any]) -> PluginUse:
    return PluginUse(
        name=plugin.name,
        family=plugin.family,
        version=plugin.version,
        given=dict(given),
        effective=parameters_of(plugin),
        source=registry.source_digest(plugin.family, plugin.name),
    )


def _settings(kind: type[BaseModel], where: str, *layers: Mapping[str, Any]) -> Any:
    merged: dict[str, Any] = {}
    for layer in layers:
        merged.update(layer)
    fields = set(kind.model_fields)
    for key in merged:
        if key not in fields:
            raise ConfigError(f"{where}: unknown setting {key!r}.{suggest(key, fields)}")
    try:
        return kind.model_validate(merged)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(
            f"{where}, {'.'.join(map(str, first['loc']))}: {first['msg']} (got {first.get('input')!r})"
        ) from error


def attack_parts(registry: Registry, attack: Attack) -> tuple[Attack, ...]:
    """The other attacks that an attack is made of (:meth:`bench.contracts.Attack.parts`), built.

    Raises:
        ConfigError: a part cannot be read or built, is the null attack, or is made of parts itself.
    """
    built = []
    for text in attack.parts():
        try:
            entry = Entry.model_validate(Entry.parse(text))
        except ValueError as error:
            raise ConfigError(
                f"attack {attack.name!r} names the attack {text!r}, which cannot be read: {error}"
            ) from error
        part = cast(Attack, registry.build("attack", entry.name, entry.parameters))
        if part.name == NONE or part.parts():
            raise ConfigError(
                f"attack {attack.name!r} cannot be made of {text!r}: name attacks with one trigger of their own"
            )
        built.append(part)
    return tuple(built)


def _goal(entry: AttackEntry, task: Task) -> Goal:
    """The attack's goal, or the task's own.

    Raises:
        ConfigError: an unknown key, no word, or what is no class of the task.
    """
    if entry.goal is None:
        return task.goal()
    where = f"goal of attack {entry.title!r}"
    kind: type[Goal] = SearchGoal if task.info.kind is TaskKind.SEARCH else LabelGoal
    fields = list(kind.__dataclass_fields__)
    for key in entry.goal:
        if key not in fields:
            raise ConfigError(f"{where}: unknown key {key!r}.{suggest(str(key), fields)}")
    if kind is SearchGoal:
        word = entry.goal.get("word")
        if not (isinstance(word, str) and re.fullmatch(r"[a-z0-9]+", word)):
            raise ConfigError(f"{where}: word must be one word of a query in lower case (a-z, 0-9), got {word!r}")
        return SearchGoal(word)
    goal, classes = LabelGoal(**entry.goal), task.info.labels
    for name, found in (("victim", goal.victim), ("target", goal.target)):
        if not (isinstance(found, int) and _is_number(found) and 0 <= found < len(classes)):
            known = ", ".join(f"{number} ({label})" for number, label in enumerate(classes))
            raise ConfigError(
                f"{where}: {name} must be the number of a class of the task, one of {known}; got {found!r}"
            )
    if goal.victim == goal.target:
        raise ConfigError(f"{where}: victim and target are both {goal.victim}; an attack turns one class into another")
    return goal


def make_policy(given: Mapping[str, Any] | None, default: Policy, where: str) -> Policy:
    """The attack's policy with what the suite changes.

    Raises:
        ConfigError: unknown key, rate and count together, or values out of range.
    """
    if given is None:
        return default
    fields = list(Policy.__dataclass_fields__)
    for key in given:
        if key not in fields:
            raise ConfigError(f"policy of {where}: unknown key {key!r}.{suggest(key, fields)}")
    values = {f: getattr(default, f) for f in fields} | dict(given)
    if given.get("count") is not None:
        if given.get("rate") is not None:
            raise ConfigError(f"policy of {where}: give a rate or a count, not both")
        values["rate"] = None
    elif given.get("rate") is not None:
        values["count"] = None
    if given.get("cover") is not None and given.get("cover_count") is not None:
        raise ConfigError(f"policy of {where}: give cover or cover_count, not both")
    if given.get("cover") is not None or given.get("cover_count") is not None:
        values |= {"cover": given.get("cover"), "cover_count": given.get("cover_count")}
    options: dict[str, tuple[str, ...]] = {
        "of": ("train", "victim"),
        "labels": ("dirty", "clean"),
        "mode": ("replace", "append"),
        "side": ("first", "second", "either", "both"),
        "weaken": ("none", "names", "gradient"),
    }
    for key, allowed in options.items():
        if values[key] not in allowed:
            raise ConfigError(f"policy of {where}: {key} is {values[key]!r}.{suggest(str(values[key]), allowed)}")
    rate, count = values["rate"], values["count"]
    if rate is not None and not (_is_number(rate) and 0 < rate <= 1):
        raise ConfigError(f"policy of {where}: rate must lie in (0, 1], got {rate!r}")
    if count is not None and not (isinstance(count, int) and _is_number(count) and count > 0):
        raise ConfigError(f"policy of {where}: count must be a positive whole number, got {count!r}")
    cover, cover_count = values["cover"], values["cover_count"]
    if cover is not None and not (_is_number(cover) and 0 <= cover < float("inf")):
        raise ConfigError(f"policy of {where}: cover must be a number of at least 0, got {cover!r}")
    if cover_count is not None and not (isinstance(cover_count, int) and _is_number(cover_count) and cover_count >= 0):
        raise ConfigError(f"policy of {where}: cover_count must be a whole number of at least 0, got {cover_count!r}")
    return Policy(**values)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


NONE = "none"


def _check_budget(task_entry: Entry, task: Task, defense_entry: Entry, defense: Defense) -> None:
    budget = getattr(task, "budget", None)
    if isinstance(budget, int) and budget < defense.needs.clean:
        raise ConfigError(
            f"defense {defense_entry.title!r} needs {defense.needs.clean} clean samples, task {task_entry.title!r} sets aside "
            f"{budget}: raise the task's 'budget' or lower the defense's need"
        )


def needs_an_attack(defense: Defense) -> bool:
    """Is it told what only an attack has (its goal, or what it poisoned), so that it cannot run on a clean model?"""
    return defense.needs.truth or defense.needs.target_label


def _check_calibration(suite: Suite, registry: Registry) -> None:
    """Calibration seeds ask for clean models and for a defense that can be calibrated.

    Raises:
        ConfigError: the suite lacks either.
    """
    if not suite.calibration_seeds:
        return
    titles = [entry.title for entry in suite.defenses]
    for title in suite.calibrated:
        if title not in titles:
            raise ConfigError(f"calibrated: no defense of the suite is called {title!r}.{suggest(title, titles)}")
    if all(entry.name != NONE for entry in suite.attacks):
        raise ConfigError(
            "calibration_seeds run defenses on clean models, and the suite has no attack 'none': add it, or drop calibration_seeds"
        )
    for entry in suite.defenses:
        if entry.name != NONE and inverts(_defense(registry, entry)):
            return
    raise ConfigError(
        "calibration_seeds calibrate defenses that invert triggers, and the suite has none (elibadcode is one): "
        "add one, or drop calibration_seeds"
    )


def _defense(registry: Registry, entry: Entry) -> Defense:
    """Build a defense, or a composition.

    Raises:
        ConfigError: an unknown plugin or parameter, or parts that do not go together.
    """
    if isinstance(entry, DefenseEntry) and entry.parts:
        return Composition([_defense(registry, part) for part in entry.parts])
    family = registry.defense_family(entry.name)
    return cast(Defense, registry.build(family, entry.name.rpartition("/")[2], entry.parameters))


def _defense_uses(registry: Registry, defense: Defense, entry: DefenseEntry) -> dict[str, PluginUse]:
    """``defense``, or one role for each part of a composition: ``defense.filter``, ``defense.repair`` ..."""
    if not isinstance(defense, Composition):
        return {"defense": _use(registry, defense, entry.parameters)}
    uses = {}
    for part in entry.parts:
        built = _defense(registry, part)
        uses[f"defense.{built.family}"] = _use(registry, built, part.parameters)
    return uses


def _seeds(
    suite: Suite, attack: Attack, defense: Defense | None, title: str, reason: str | None
) -> list[tuple[int, bool]]:
    """The seeds of a cell, each with whether it is there for calibration alone."""
    seeds = [(seed, False) for seed in suite.seeds]
    calibrated = not suite.calibrated or title in suite.calibrated
    if attack.name == NONE and inverts(defense) and reason is None and calibrated:
        seeds += [(seed, True) for seed in suite.calibration_seeds]
    return seeds


def cells(suite: Suite, registry: Registry) -> Iterator[CellPlan]:
    """Every cell of a suite, built and checked.

    Raises:
        ConfigError: an unknown plugin, parameter or setting; a clean budget that is too small for a defense; calibration seeds
            with nothing to calibrate.
    """
    _check_calibration(suite, registry)
    for number, entry in enumerate(suite.trainings, start=1):
        _settings(TrainingSettings, f"trainings, entry {number}", entry.training)
    for task_entry in suite.tasks:
        task = cast(Task, registry.build("task", task_entry.name, task_entry.parameters))
        for model_entry in suite.models:
            where = f"model {model_entry.title!r}"
            stated: ModelSettings = _settings(ModelSettings, where, model_entry.parameters)
            settings = filled(model_entry.name, stated, task.info.kind)
            own = [e.training for e in suite.trainings if e.holds(task_entry.title, model_entry.title)]
            layers = (suite.training, model_entry.training, task_entry.training, *own)
            training: TrainingSettings = _settings(TrainingSettings, f"training of {task_entry.title!r}", *layers)
            for attack_entry in suite.attacks:
                attack = cast(Attack, registry.build("attack", attack_entry.name, attack_entry.parameters))
                parts = attack_parts(registry, attack)
                null = attack.name == NONE
                policy = None
                if isinstance(attack, Supplier):
                    if attack_entry.policy:
                        raise ConfigError(
                            f"attack {attack_entry.title!r} poisons an encoder and no training sample: it has no policy; drop the key"
                        )
                elif not null:
                    usual = make_policy(attack_entry.policy, attack.policy(task.info), f"attack {attack_entry.title!r}")
                    policy = make_policy(task_entry.policy or None, usual, f"task {task_entry.title!r}")
                for defense_entry in suite.defenses:
                    defense: Defense | None = None
                    uses = {
                        "task": _use(registry, task, task_entry.parameters),
                        "attack": _use(registry, attack, attack_entry.parameters),
                        **{f"attack.{i}": _use(registry, part, {}) for i, part in enumerate(parts, start=1)},
                    }
                    if defense_entry.name != NONE:
                        defense = _defense(registry, defense_entry)
                        uses |= _defense_uses(registry, defense, defense_entry)
                        _check_budget(task_entry, task, defense_entry, defense)
                    elif defense_entry.parameters:
                        raise ConfigError("defense 'none' has no parameters")
                    reasons = (part.not_applicable(task.info) for part in (attack, *parts))
                    reason = next((r for r in reasons if r is not None), None)
                    if reason is None and defense is not None:
                        reason = defense.not_applicable(task.info)
                    if reason is None and null and defense is not None and needs_an_attack(defense):
                        reason = f"{defense.name} needs an attack's truth, and nothing was attacked"
                    for seed, calibration in _seeds(suite, attack, defense, defense_entry.title, reason):
                        at = Coordinates(
                            task=task_entry.title,
                            model=model_entry.title,
                            attack=attack_entry.title,
                            defense=defense_entry.title,
                            seed=seed,
                        )
                        if not all(entry.only.holds(at, calibration) for entry in (model_entry, attack_entry)):
                            continue
                        yield CellPlan(
                            suite=suite.name,
                            coordinates=at,
                            task=task,
                            attack=None if null else attack,
                            # What it finds is the same; nobody asks what calibration repairs.
                            defense=accuser(defense) if calibration else defense,
                            model_name=model_entry.name,
                            model_settings=settings,
                            training=training,
                            goal=_goal(attack_entry, task),
                            policy=policy,
                            uses=uses,
                            seeds={
                                "data": suite.data_seed,
                                "poison": seed,
                                "model": seed,
                                "training": seed,
                                "defense": seed,
                            },
                            not_applicable=reason,
                            parts=parts,
                            calibration=calibration,
                        )


LONGEST_SLUG = 255 - len(".filter.parquet")
"""Of a cell's name: with the longest of its endings it is the name of a file, of which most systems take 255 bytes."""


def check_unique(plans: Sequence[CellPlan]) -> None:
    """Two cells of one name would overwrite each other, and files of too long a name could not be written once all is computed.

    Raises:
        ConfigError: names the cell.
    """
    seen: dict[str, Coordinates] = {}
    for plan in plans:
        slug = plan.coordinates.slug
        if len(slug) > LONGEST_SLUG:
            raise ConfigError(
                f"the name of cell {slug!r} has {len(slug)} characters, and names of files end at {LONGEST_SLUG}; "
                "give the entry a label in the suite"
            )
        if slug in seen:
            raise ConfigError(f"two cells are called {slug!r}; give one of the entries a label of its own")
        seen[slug] = plan.coordinates
