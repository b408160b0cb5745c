"""The stages of the pipeline: pure functions from stored parents and a seed to files in a folder."""

from __future__ import annotations

import json
import math
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, cast

import numpy as np
import pandas as pd
import scipy.linalg  # noqa: F401  it has a BLAS of its own, whose threads can only be set once it is loaded
import torch
from threadpoolctl import threadpool_limits

from bench import models, outcomes
from bench.context import Context, axis_seed
from bench.contracts import Attack, Filter, Policy, Repair, Screen, Supplier, Task, TrainingRule, Trigger, Verdict
from bench.errors import ModelError, PluginError
from bench.handover import known, training_set
from bench.jobs import (
    Job,
    Stage,
    Workshop,
    goal_from,
    load_model,
    read_poisoned,
    read_splits,
    save_model,
    unfit_weights,
    write_samples,
)
from bench.models.folders import digest_of_folder, local_folder
from bench.models.handles import WhiteBox
from bench.models.memory import beside_others
from bench.models.precision import computing_in
from bench.models.settings import ModelSettings, TrainingSettings
from bench.models.training import Trainer
from bench.poisoning import Poisoned, poison
from bench.predicting import predictions
from bench.reach import reach
from bench.records import DTYPE
from bench.resident import forget_peak, peak_bytes
from bench.samples import Sample, Splits
from bench.scoring import score
from bench.sharing import measured
from bench.stealth import stealth
from bench.store import Entry, write_json
from bench.supplying import aim, received


def run_stage(stage: Stage, workshop: Workshop, shared: bool = False) -> Entry:
    """Run one stage and publish its result; a published one is returned as it is.

    Args:
        stage: what to run.
        workshop: where, and with which plugins.
        shared: other stages compute on the same graphics device. Where its memory runs out, that error is raised
            (:func:`bench.models.memory.ran_out_of_memory` tells it), and the stage is to be run again with the device to itself.

    Raises:
        Exception: whatever a plugin raises; the caller records it.
        StoreError: the store or its mirror cannot be used.
    """
    store = workshop.store
    done = store.find(stage.kind, stage.key)
    if done is not None:
        store.share(stage.kind, stage.key)
        return done
    parents = {role: store.get(kind, key) for role, (kind, key) in stage.parents.items()}
    forget_peak()
    started = time.perf_counter()
    numerics = stage.inputs.get("numerics", {"device": "cpu", "threads": 1})
    with _numerics(numerics) as device, beside_others(shared), measured(device) as taken:
        entry = store.publish(
            stage.kind, stage.key, stage.identity(), lambda folder: _fill(Job(stage, parents, folder, workshop, device))
        )
    store.note_timing(
        stage.kind, stage.key, time.perf_counter() - started, peak_bytes(), {**taken, "model": stage.model}
    )
    return entry


def _fill(job: Job) -> None:
    try:
        with _staying():
            STAGES[job.stage.kind](job)
    except (Exception, SystemExit):  # not what stops the run from outside: that has to get through
        job.check_parents()  # one that fails may have written too; its own error stands in the traceback
        raise
    job.check_parents()
    job.check_origins()


@contextmanager
def _staying() -> Iterator[None]:
    """In the block, what would end this process at once is an error of the plugin that asks for it; processes forked from it may end.

    ``sys.exit`` raises, and is booked like any error. ``os._exit(0)`` would end a run in one process as if all were done, and a pool
    takes such an end of a worker for a retirement, and waits for its stage for ever.
    """
    end, owner = os._exit, os.getpid()

    def told(status: int) -> NoReturn:
        if os.getpid() == owner:
            raise PluginError(
                f"the plugin called os._exit({status}), which ends the process that runs it; raise an error instead"
            )
        end(status)

    os._exit = told
    try:
        yield
    finally:
        os._exit = end


@contextmanager
def _numerics(numerics: Mapping[str, Any]) -> Iterator[torch.device]:
    """Fix whatever floating-point sums depend on; restore it afterwards."""
    device = torch.device(str(numerics["device"]))
    if device.type == "cuda":
        # Without a workspace of fixed size its products are not deterministic, whatever torch is told. cuBLAS reads it once, when it is
        # first used, so there is nothing to restore.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        # Read as once, and stronger than what torch is told: products of float32 would be those of TF32.
        os.environ.pop("NVIDIA_TF32_OVERRIDE", None)
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    products = _products()
    count = int(numerics["threads"])
    torch.set_num_threads(count)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Not what TORCH_ALLOW_TF32_CUBLAS_OVERRIDE or a plugin before made of it. The key says what is computed in.
    torch.set_float32_matmul_precision("highest")
    states = (random.getstate(), torch.get_rng_state())
    try:
        # numpy's and scipy's linear algebra asks not torch but its own setting, which is one in a worker and all cores elsewhere.
        with threadpool_limits(count, user_api="blas"), computing_in(str(numerics.get("dtype", DTYPE))):
            yield device
    finally:
        random.setstate(states[0])
        torch.set_rng_state(states[1])
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)
        torch.set_float32_matmul_precision(products)


def _products() -> str:
    """How exact products of float32 are in this process."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:  # somebody has set it for one kind of device: no word says that
        return "highest"


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
        context.parts = tuple(job.build(use) for use in job.inputs["attack"].get("parts", ()))
        if "training" in job.inputs:
            context.trainer = Trainer(TrainingSettings.model_validate(job.inputs["training"]), (), context)
        trigger: Trigger | None
        policy = Policy(**job.inputs["policy"]) if "policy" in job.inputs else None
        if isinstance(attack, Supplier):
            victim = load_model(job.parents["model"], info, context)
            offered = attack.candidates(splits.train, goal, info, context)
            trigger = aim(victim, offered, splits.train, goal, info, context).trigger
        else:
            trigger = attack.prepare(splits.train, goal, info, context)
        if trigger is None:
            raise PluginError(f"attack {attack.name!r} made no trigger; only the null attack may do that")
        result = poison(splits, trigger, goal, policy, info, context)
    write_json(job.folder / "poisoned.json", result.to_json())


def _fresh(job: Job, splits: Splits, context: Context) -> WhiteBox:
    """The model that nobody has trained yet.

    Raises:
        ModelError: it does not load, or its folder does not hold what the key was made for.
    """
    settings = ModelSettings.model_validate(job.inputs["model"]["settings"])
    _check_folder(job, settings)
    # The vocabulary of a model that makes its own comes from the clean split, as a pretrained one's would: reference
    # and victim then start from the same weights and differ in what they were trained on alone.
    model = models.create(job.inputs["model"]["name"], job.info, splits.train, settings, context)
    _check_folder(job, settings)  # once more: they may have been replaced while they were read
    return model


def _check_folder(job: Job, settings: ModelSettings) -> None:
    """See that a model's folder holds the files whose digest stands in the key.

    Raises:
        ModelError: it does not: they were replaced after the run was planned, or this machine has others.
    """
    folder = local_folder(job.inputs["model"]["name"], settings.path)
    stated = job.inputs["model"].get("files")
    found = None if folder is None else digest_of_folder(folder)
    if found != stated:
        told = [f"sha256 {digest[:12]}" if digest is not None else "no such folder" for digest in (found, stated)]
        raise ModelError(
            f"model folder {folder or job.inputs['model']['name']}: it is not what this run was planned with ({told[0]}, not {told[1]}): "
            "its files were replaced since, or this machine has others. Put the files back, or run again: other weights are another key."
        )


def _supply(job: Job) -> None:
    splits = read_splits(job.parents["data"])
    attack = cast(Supplier, job.plugin("attack"))
    with job.context() as context:
        model = _fresh(job, splits, context)
        # No validation data: what the user will judge his model by is not the supplier's.
        context.trainer = Trainer(TrainingSettings.model_validate(job.inputs["training"]), (), context)
        before = model.fingerprint()
        supplied = attack.supply(model, splits.train, goal_from(job.inputs["goal"]), job.info, context)
        if not isinstance(supplied, WhiteBox):
            raise PluginError(f"attack {attack.name!r} supplied {type(supplied).__name__}, not a model")
        if model.fingerprint() != before:
            raise PluginError(f"attack {attack.name!r} changed the model that came in; work on model.copy()")
        save_model(supplied, job.folder, f"attack {attack.name!r}")


def _train(job: Job) -> None:
    splits, train, _ = training_set(job)
    if not train:
        raise PluginError("the filter dropped the whole training set; nothing is left to train on")
    training = TrainingSettings.model_validate(job.inputs["training"])
    with job.context() as context:
        trained, trainer = _trained(job, splits, train, training, context)
        facts: dict[str, Any] = {"samples": len(train)}
        unfit = _divergence(trained, trainer.history)
        if unfit and training.retry_diverged:
            context.log.warning("training diverged (%s); once more, with the next training seed", unfit)
            facts["diverged"] = _printable(trainer.history)
            again = axis_seed(context.seeds, "training", "after divergence")
            context.seeds = {**context.seeds, "training": again}
            trained, trainer = _trained(job, splits, train, training, context)
            unfit = _divergence(trained, trainer.history)
        if unfit:
            raise PluginError(_diverged(unfit, training))
        save_model(trained, job.folder, "training")
        write_json(job.folder / "facts.json", {"history": trainer.history, **facts})
        if trainer.notes:
            write_json(job.folder / "notes.json", trainer.notes)


def _trained(
    job: Job, splits: Splits, train: Sequence[Sample], training: TrainingSettings, context: Context
) -> tuple[WhiteBox, Trainer]:
    """The model as it comes out of its training, and the trainer that made it."""
    model = _fresh(job, splits, context)
    if "supply" in job.parents:
        model = received(model, load_model(job.parents["supply"], job.info, context))
    trainer = Trainer(training, splits.valid, context)
    context.trainer = trainer
    if "rule" in job.inputs:
        rule = cast(TrainingRule, job.plugin("rule"))
        trained = rule.train(model, known(job, rule, context, None), job.info, context)
    else:
        trained = trainer.fit(model, train, axis="training")
    if not isinstance(trained, WhiteBox):
        raise PluginError(f"the training rule returned {type(trained).__name__}, not a model")
    return trained, trainer


def _divergence(model: WhiteBox, history: Sequence[Mapping[str, Any]]) -> str:
    """What of a training is not finite, in words; empty where all of it is.

    The weights alone do not tell: where an epoch is chosen by the validation data, those of the last one before the training diverged
    come back.
    """
    broken = unfit_weights(model)
    if broken:
        return f"{len(broken)} weight tensors are not finite (NaN or infinite), the first is {broken[0]!r}"
    for place, epoch in enumerate(history, 1):
        for name, value in epoch.items():
            if isinstance(value, float) and not math.isfinite(value):
                return f"the {name} of epoch {epoch.get('epoch', place)} is not finite ({value})"
    return ""


def _diverged(unfit: str, training: TrainingSettings) -> str:
    if training.retry_diverged:
        return f"training diverged, with the next training seed too: {unfit}. Lower the learning rate."
    return (
        f"training diverged: {unfit}. Lower the learning rate, or let the suite's training have retry_diverged: true "
        "(once more, with the next seed)."
    )


def _printable(history: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A history whose losses JSON can hold: those that are not finite as words."""

    def shown(value: Any) -> Any:
        return str(value) if isinstance(value, float) and not math.isfinite(value) else value

    return [{name: shown(value) for name, value in epoch.items()} for epoch in history]


def _filter(job: Job) -> None:
    defense = cast(Filter, job.plugin("defense"))
    with job.context() as context:
        model = load_model(job.parents["model"], job.info, context) if "model" in job.parents else None
        _, train, poisoned = training_set(job)
        suspicion = defense.judge(known(job, defense, context, model), job.info, context)
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
        repaired = defense.repair(known(job, defense, context, model), job.info, context)
        if model.fingerprint() != before:
            raise PluginError(f"repair {defense.name!r} changed the model that came in; work on model.copy()")
        if bool(repaired.inversions) != defense.inverts:
            raise PluginError(
                f"repair {defense.name!r} declares inverts={defense.inverts}, and returned {len(repaired.inversions)} inversions"
            )
        save_model(repaired.model, job.folder, f"repair {defense.name!r}")
    found = {claim: inverted.model_dump(mode="json") for claim, inverted in repaired.inversions.items()}
    unfit = _divergence(repaired.model, context.trainer.history)
    try:
        write_json(job.folder / "facts.json", {"facts": dict(repaired.facts), "inversions": found})
    except (TypeError, ValueError) as error:
        # Facts often hold the history of what the repair trained: then this is what happened.
        why = f". Its training diverged: {unfit}; lower its learning rate" if unfit else ""
        raise PluginError(f"repair {defense.name!r} returned facts that are not JSON-ready: {error}{why}") from error


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
    splits, _, poisoned = training_set(job)
    with job.context() as context:
        model = load_model(job.parents["model"], job.info, context) if "model" in job.parents else None
        fitted = defense.fit(known(job, defense, context, model, poisoned_inputs=True), job.info, context)
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
    if job.parents["model"].kind == "train" and "diverged" in job.parents["model"].json("facts.json"):
        facts["retried"] = True
    table.to_parquet(job.folder / "predictions.parquet", index=False)
    write_json(job.folder / "facts.json", facts)


STAGES: Mapping[str, Callable[[Job], None]] = {
    "data": _data,
    "poison": _poison,
    "supply": _supply,
    "train": _train,
    "filter": _filter,
    "repair": _repair,
    "screen": _screen,
    "predict": _predict,
    "score": score,
    "stealth": stealth,
    "reach": reach,
}
