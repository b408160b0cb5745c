"""From cells to a graph of stages in which everything that cells can share stands once.

::

    data ─► poison ─► train (victim) ─► [filter ─► train] | [train with a rule] | [repair] ─► predict ─► score
      └──► train (reference: same seed, clean data) ────────────────────────────► predict ────┤
                     └──► [the same repair, where it inverts triggers: the null] ─────────────┘
                                                       [screen] ─► predict
         poison ─► stealth;   poison, victim, reference, the victim's predict ─► reach

What is told of the attack itself (stealth of its texts, reach in this victim) lies beside the score and never in its key:
it can be added to results that are there.

A supplier's attack has another way: data ─► supply ─► train (victim) ─► poison (the test inputs alone; :mod:`bench.supplying`).
The null of a cell is the defense's own stage in the cell of attack ``none`` at the same seed: one key, run once.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from bench.composing import inverts, part_of
from bench.contracts import Access, Attack, Defense, Plugin, Supplier, TaskInfo
from bench.errors import ConfigError
from bench.estimating import training_tokens
from bench.jobs import Stage, goal_json
from bench.models.folders import digest_of_folder, local_folder
from bench.models.lora import peft_version
from bench.models.precision import Precision, resolve_precision
from bench.models.settings import TrainingSettings
from bench.plugins import parameters_of, source_of
from bench.records import DTYPE, Coordinates, PluginUse
from bench.samples import digest_of
from bench.suite import CellPlan, Suite, needs_an_attack

PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "datasets",
    "tree-sitter",
    "numpy",
    "pandas",
    "scipy",
    "scikit-learn",
)


@dataclass(frozen=True)
class CellGraph:
    """A cell and the stages that lead to its score; no stages where it is not applicable."""

    plan: CellPlan
    score: Stage | None
    stages: tuple[Stage, ...]
    stealth: tuple[Stage, ...] = ()
    """What is told of the attack: its ``stealth``, and its ``reach`` in the cell's victim; empty for the null attack."""

    @property
    def coordinates(self) -> Coordinates:
        """Where the cell stands."""
        return self.plan.coordinates


def badges(defense: Defense | None) -> list[str]:
    """What a defense is allowed to know, in words."""
    if defense is None:
        return []
    needs = defense.needs
    words = []
    if needs.clean:
        words.append(f"{needs.clean} clean samples")
    if needs.training_set:
        words.append("training set")
    if needs.model is Access.OUTPUTS:
        words.append("outputs")
    if needs.model is Access.WEIGHTS:
        words.append("weights")
    if needs.target_label:
        words.append("target")
    if needs.poison_rate:
        words.append("poison rate")
    if needs.truth:
        words.append("ORACLE: the truth")
    return words


def package_versions() -> dict[str, str]:
    """Versions of the packages that results depend on."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


def resolve_device(name: str) -> str:
    """``auto`` is CUDA where there is one.

    Raises:
        ConfigError: ``cuda`` where there is none.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("the suite asks for device 'cuda', and torch sees no CUDA device here; use 'auto' or 'cpu'")
    return name


@dataclass(frozen=True)
class Computing:
    """What models compute on, and in which type.

    Attributes:
        device: ``cpu`` or ``cuda``.
        dtype: ``float32`` or ``bfloat16``.
    """

    device: str
    dtype: str


def computing_here(device: str, precision: Precision) -> Computing:
    """What a suite's device and precision mean on this machine.

    Raises:
        ConfigError: ``cuda`` where there is none.
    """
    found = resolve_device(device)
    return Computing(found, resolve_precision(precision, found))


def _info_json(info: TaskInfo) -> dict[str, Any]:
    return {**asdict(info), "kind": info.kind.value, "labels": list(info.labels)}


def _identity(plugin: Plugin) -> dict[str, Any]:
    """Which plugin; one of a file outside the tree with its source too, since its version may lag behind."""
    source = source_of(plugin)
    return {
        "family": plugin.family,
        "name": plugin.name,
        "version": plugin.version,
        "parameters": parameters_of(plugin),
        **({"source": source} if source is not None else {}),
    }


def _plugin_json(plugin: Plugin) -> dict[str, Any]:
    """Which plugin, and what it takes from elsewhere; nothing of that where there is nothing, as in the keys that are stored."""
    origin = dict(plugin.origin())
    return {**_identity(plugin), **({"origin": origin} if origin else {})}


def _attack_json(attack: Attack, parts: Sequence[Attack]) -> dict[str, Any]:
    """An attack, with the versions and parameters of those that it is made of."""
    return {**_plugin_json(attack), **({"parts": [_plugin_json(part) for part in parts]} if parts else {})}


class Builder:
    """Builds the stages of cells of one suite.

    Args:
        suite: the suite.
        computing: what the stages will compute on; none: what this machine has.
    """

    def __init__(self, suite: Suite, computing: Computing | None = None) -> None:
        found = computing or computing_here(suite.device, suite.precision)
        self._packages = package_versions()
        self._numerics = {
            "device": found.device,
            "threads": suite.threads,
            "torch": self._packages["torch"],
            "transformers": self._packages["transformers"],
            **({"dtype": found.dtype} if found.dtype != DTYPE else {}),
        }
        self._origins: dict[str, Mapping[str, str]] = {}

    def cell(self, plan: CellPlan) -> CellGraph:
        """All stages of one cell, parents before children."""
        if plan.not_applicable is not None:
            return CellGraph(plan, None, ())
        stages: dict[str, Stage] = {}

        def add(stage: Stage) -> tuple[str, str]:
            stages[stage.key] = replace(stage, model=weight)
            return stage.kind, stage.key

        info = _info_json(plan.task.info)
        goal = goal_json(plan.goal)
        at = plan.coordinates
        where = f"{at.task} {at.model} {at.attack}"
        size, weight = training_tokens(plan), self._weight(plan)
        data = add(self._data(plan))
        base = {"data": data}
        model: dict[str, Any] = {"name": plan.model_name, "settings": plan.model_settings.model_dump(mode="json")}
        folder = local_folder(plan.model_name, plan.model_settings.path)
        if folder is not None and (digest := digest_of_folder(folder)) is not None:
            model["files"] = digest
        train_inputs: dict[str, Any] = {
            "model": model,
            "training": plan.training.model_dump(mode="json"),
            "info": info,
            "seeds": self._seeds(plan, "model", "training"),
            "numerics": self._numerics | ({"peft": peft_version()} if plan.model_settings.lora else {}),
        }
        reference = add(
            Stage(
                "train", train_inputs, {"data": data}, f"train {at.task} {at.model} clean seed {at.seed}", tokens=size
            )
        )
        victim = reference
        if plan.attack is not None:
            attack = {
                "attack": _attack_json(plan.attack, plan.parts),
                "goal": goal,
                "info": info,
                "seeds": self._seeds(plan, "poison"),
            }
            weakens = plan.policy is not None and plan.policy.surrogate
            if weakens or any(part.surrogate for part in (plan.attack, *plan.parts)):
                # What an attack makes with a model of its own depends on what the numbers of any model depend on.
                attack |= {"training": TrainingSettings().model_dump(mode="json"), "numerics": self._numerics}
            title = f"poison {at.task} {at.attack} seed {at.seed}"
            if isinstance(plan.attack, Supplier):
                # The encoder is poisoned before the user trains it, and the trigger is aimed afterwards.
                supplied = {**attack, **train_inputs, "seeds": self._seeds(plan, "poison", "model")}
                base["supply"] = add(
                    Stage("supply", supplied, dict(base), f"supply {where} seed {at.seed}", tokens=size)
                )
                victim = add(Stage("train", train_inputs, dict(base), f"train {where} seed {at.seed}", tokens=size))
                aimed = {**attack, "numerics": self._numerics}
                base["poison"] = add(Stage("poison", aimed, {"data": data, "model": victim}, title))
            elif plan.policy is not None:
                base["poison"] = add(Stage("poison", {**attack, "policy": plan.policy.to_json()}, dict(base), title))
                victim = add(Stage("train", train_inputs, dict(base), f"train {where} seed {at.seed}", tokens=size))

        def predict(model: tuple[str, str], label: str, own: bool, **more: tuple[str, str]) -> tuple[str, str]:
            inputs = {"info": info, "goal": goal, "numerics": self._numerics, "seeds": {}}
            return add(Stage("predict", inputs, {**base, "model": model, **more}, f"predict {label}", own=own))

        undefended = predict(victim, f"{where} seed {at.seed}", False)
        on_reference = predict(reference, f"{where} seed {at.seed} on the clean reference", False)
        parents = {**base, "undefended": undefended, "reference": on_reference, "defended": undefended}
        if plan.defense is not None:
            parents |= self._defend(plan, base, victim, reference, train_inputs, goal, size, add, predict)
        # A filter's table got a column with version 2; cells without a filter keep their key.
        table = {"filter_table": 2} if "filter" in parents else {}
        score = Stage("score", self._score_inputs(plan, info, goal) | table, parents, f"score {at.slug}", own=True)
        add(score)
        told = self._stealth(plan, base, victim, reference, undefended) if "poison" in base else ()
        for stage in told:
            add(stage)
        return CellGraph(plan, stages[score.key], tuple(stages.values()), tuple(stages[stage.key] for stage in told))

    def _stealth(
        self,
        plan: CellPlan,
        base: Mapping[str, tuple[str, str]],
        victim: tuple[str, str],
        reference: tuple[str, str],
        undefended: tuple[str, str],
    ) -> tuple[Stage, Stage]:
        """What is told of the attack, and of the attack in this victim."""
        at, info = plan.coordinates, _info_json(plan.task.info)
        where = f"{at.task} {at.attack} seed {at.seed}"
        stealth = Stage("stealth", {"info": info, "seeds": {}}, base, f"stealth {where}")
        inputs = {"info": info, "goal": goal_json(plan.goal), "numerics": self._numerics, "seeds": {}}
        parents = {**base, "model": victim, "reference": reference, "undefended": undefended}
        reach = Stage("reach", inputs, parents, f"reach {at.task} {at.model} {at.attack} seed {at.seed}")
        return stealth, reach

    def _defend(
        self,
        plan: CellPlan,
        base: Mapping[str, tuple[str, str]],
        victim: tuple[str, str],
        reference: tuple[str, str],
        train_inputs: Mapping[str, Any],
        goal: Mapping[str, Any],
        size: int,
        add: Any,
        predict: Any,
    ) -> dict[str, tuple[str, str]]:
        """The defense's own stages; returns the roles that the score reads."""
        at = plan.coordinates
        label = f"{at.defense} on {at.task} {at.model} {at.attack} seed {at.seed}"
        roles, model = self._before_inference(plan, base, victim, train_inputs, goal, size, add, label, own=True)
        told = plan.defense is not None and needs_an_attack(plan.defense)
        if inverts(plan.defense) and victim != reference and not told:
            on = f"{at.defense} on {at.task} {at.model} seed {at.seed} on the clean reference (null)"
            clean = {"data": base["data"]}
            null, _ = self._before_inference(plan, clean, reference, train_inputs, goal, size, add, on, own=False)
            roles["null"] = null["repair"]
        screen = part_of(plan.defense, "screen")
        if screen is None:
            return {**roles, "defended": predict(model, label, True)}
        parents = self._seen(base, roles)
        if screen.needs.model is not Access.NONE:
            parents["model"] = model
        inputs = self._defense_inputs(plan, screen, train_inputs, goal)
        fitted = add(Stage("screen", inputs, parents, f"screen {label}", own=True))
        return {**roles, "screen": fitted, "defended": predict(model, label, True, screen=fitted)}

    def _before_inference(
        self,
        plan: CellPlan,
        base: Mapping[str, tuple[str, str]],
        model: tuple[str, str],
        train_inputs: Mapping[str, Any],
        goal: Mapping[str, Any],
        size: int,
        add: Any,
        label: str,
        own: bool,
    ) -> tuple[dict[str, tuple[str, str]], tuple[str, str]]:
        """What a filter, a training rule and a repair do to a model trained on ``base``: (roles, the model they leave)."""
        roles: dict[str, tuple[str, str]] = {}
        sieve, rule, repair = (part_of(plan.defense, family) for family in ("filter", "training", "repair"))
        if sieve is not None:
            inputs = self._defense_inputs(plan, sieve, train_inputs, goal)
            parents = {**base, "model": model} if sieve.needs.model is not Access.NONE else dict(base)
            roles["filter"] = add(Stage("filter", inputs, parents, f"filter {label}", own=own, tokens=size // 6))
        if rule is not None:
            inputs = {
                **train_inputs,
                "rule": _plugin_json(rule),
                "seeds": self._seeds(plan, "model", "training", "defense"),
            }
            if rule.needs.target_label:
                inputs["goal"] = goal
            parents = self._seen(base, roles)
            model = roles["trained"] = add(Stage("train", inputs, parents, f"train with {label}", own=own, tokens=size))
        elif sieve is not None:
            parents = self._seen(base, roles)
            model = roles["trained"] = add(
                Stage("train", train_inputs, parents, f"train after {label}", own=own, tokens=size)
            )
        if repair is not None:
            inputs = self._defense_inputs(plan, repair, train_inputs, goal)
            parents = {**self._seen(base, roles), "model": model}
            model = roles["repair"] = add(
                Stage("repair", inputs, parents, f"repair {label}", own=own, tokens=size // 3)
            )
        return roles, model

    @staticmethod
    def _seen(base: Mapping[str, tuple[str, str]], roles: Mapping[str, tuple[str, str]]) -> dict[str, tuple[str, str]]:
        """The data as a filter left it."""
        return {**base, "filter": roles["filter"]} if "filter" in roles else dict(base)

    def _defense_inputs(
        self, plan: CellPlan, defense: Defense, train_inputs: Mapping[str, Any], goal: Mapping[str, Any]
    ) -> dict[str, Any]:
        inputs = {
            "defense": _plugin_json(defense),
            "info": train_inputs["info"],
            "training": train_inputs["training"],
            "seeds": self._seeds(plan, "defense"),
            "numerics": self._numerics,
        }
        return {**inputs, "goal": goal} if defense.needs.target_label else inputs

    def _data(self, plan: CellPlan) -> Stage:
        task = _identity(plan.task)
        known = str(task)
        if known not in self._origins:
            self._origins[known] = dict(plan.task.origin())
        inputs = {"task": task, "origin": self._origins[known], "seeds": self._seeds(plan, "data")}
        return Stage("data", inputs, {}, f"data {plan.coordinates.task}")

    @staticmethod
    def _seeds(plan: CellPlan, *axes: str) -> dict[str, int]:
        return {axis: plan.seeds[axis] for axis in axes}

    def _weight(self, plan: CellPlan) -> str:
        """What decides how much memory the stages of a cell take, beside their kinds: its model's name, and a digest of the rest."""
        told = {
            "model": plan.model_name,
            "settings": plan.model_settings.model_dump(mode="json"),
            "batch": [plan.training.batch_size, plan.training.accumulation],
            "task": plan.task.info.name,
            "dtype": self._numerics.get("dtype", DTYPE),
        }
        return f"{Path(plan.model_name).name} {digest_of(told)[:12]}"

    def _score_inputs(self, plan: CellPlan, info: Mapping[str, Any], goal: Mapping[str, Any]) -> dict[str, Any]:
        uses: Mapping[str, PluginUse] = plan.uses
        return {
            "coordinates": plan.coordinates.model_dump(),
            "info": info,
            "goal": goal,
            "policy": plan.policy.to_json() if plan.policy is not None else None,
            "family": plan.defense.family if plan.defense is not None else "none",
            "knows": badges(plan.defense),
            "clean_samples": plan.defense.needs.clean if plan.defense is not None else 0,
            "uses": {role: use.model_dump(mode="json") for role, use in uses.items()},
            "seeds": dict(plan.seeds),
            "settings": {
                "model": plan.model_settings.model_dump(mode="json"),
                "training": plan.training.model_dump(mode="json"),
                "numerics": self._numerics,
            },
            "packages": self._packages,
        }


def merge(graphs: Iterable[CellGraph]) -> dict[str, Stage]:
    """All stages of several cells by key, parents before children; a stage that any cell shares counts as shared."""
    merged: dict[str, Stage] = {}
    for graph in graphs:
        for stage in graph.stages:
            known = merged.get(stage.key)
            if known is None:
                merged[stage.key] = stage
            elif known.own and not stage.own:
                merged[stage.key] = replace(known, own=False)
    return merged


def select(plans: Sequence[CellPlan], only: Mapping[str, Sequence[str]]) -> list[CellPlan]:
    """Cells whose coordinates are among the given values.

    Raises:
        ConfigError: a value that no cell has (with a suggestion).
    """
    from bench.errors import suggest

    chosen = list(plans)
    for axis, values in only.items():
        have = {str(getattr(p.coordinates, axis)) for p in plans}
        for value in values:
            if value not in have:
                raise ConfigError(f"no cell of the suite has {axis} {value!r}.{suggest(value, have)}")
        chosen = [p for p in chosen if str(getattr(p.coordinates, axis)) in values]
    return chosen
