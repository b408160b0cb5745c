"""The harness's trainer: the Trainer of ``transformers`` with length grouping, seeds by axis and nothing left behind."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset, Sampler
from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from bench.context import Context, axis_seed
from bench.contracts import TaskInfo, TaskKind
from bench.errors import ConfigError, DataError, ModelError
from bench.models.handles import WhiteBox
from bench.models.hush import quiet
from bench.models.launched import launched_by_nobody
from bench.models.lora import Adapters
from bench.models.memory import may_cut, ran_out_of_memory
from bench.models.network import CodeNetwork
from bench.models.settings import TrainingSettings
from bench.models.tokens import Tokens, pad
from bench.samples import Sample

Objective = Callable[[Tensor, Tensor, float, Sequence[str]], Tensor]
"""(logits (n, classes), labels (n,), progress in epochs, sample ids) -> scalar loss.

Per-sample weights and schedules are functions of the ids and the progress, which counts epochs done: 0.0 at the first step.
For code search the logits are the scaled in-batch similarities (n queries, n programs) and the labels 0 … n-1.
"""

Step = Callable[[CodeNetwork, Sequence[Tokens], Callable[[Tensor], Tensor]], Tensor]
"""(network in training, the sides of a batch, objective of the network's outputs) -> scalar loss.

What a step minimises, for methods that need more of the network than its outputs. ``objective(network(*sides))`` is the plain
step. One pass forward and back is counted for each step; whoever makes more counts them (``context.cost``).
"""

Trained = Literal["all", "head", "embedding"]
"""Which parameters a fit trains: all of them (of a model with LoRA: new adapters and the head), the head alone, or the table of
input embeddings alone."""

FRESH_RATE = 5e-4
PRETRAINED_RATE = 5e-5
LORA_RATE = 2e-4
GROUPED_BATCHES = 16
"""Batches are cut from runs of this many that were sorted by length: little padding, and still a random mix."""


def cross_entropy(logits: Tensor, labels: Tensor, progress: float, ids: Sequence[str]) -> Tensor:
    """The objective used where a plugin gives none."""
    return functional.cross_entropy(logits, labels)


class Trainer:
    """Trains models for the harness and for plugins; built by the harness, found at ``context.trainer``.

    Attributes:
        settings: defaults of every fit.
        history: of the last fit, one dictionary an epoch: ``epoch`` (from 1), ``loss`` (mean over its steps), the task's metric
            on the validation data, ``chosen`` (this epoch's weights were returned), and ``pieces`` where a step's batch went
            through the model in several.
        notes: what a training rule leaves for readers (losses of samples over time, say); JSON-ready, kept beside the model.
    """

    def __init__(self, settings: TrainingSettings, valid: Sequence[Sample], context: Context) -> None:
        self.settings = settings
        self.history: list[dict[str, Any]] = []
        self.notes: dict[str, Any] = {}
        self._valid = tuple(valid)
        self._context = context

    def fit(
        self,
        model: WhiteBox,
        samples: Sequence[Sample],
        *,
        axis: str,
        objective: Objective | None = None,
        step: Step | None = None,
        epochs: float | None = None,
        learning_rate: float | None = None,
        batch_size: int | None = None,
        parameters: Trained = "all",
        select_best: bool = True,
        shown: Callable[[Sample], Sample] | None = None,
    ) -> WhiteBox:
        """Train a copy of ``model`` and return it; ``model`` itself stays as it was.

        The result depends on the weights that come in, the samples in their order, the arguments and the seed of ``axis``; the
        global generators are left as they were found, and what launchers of parallel programs put into the environment does not count
        (:mod:`bench.models.launched`). With no samples or no epochs the copy comes back untrained.

        Where memory runs out (on a graphics device) training starts again from the same weights with each step's batch in at least
        twice as many pieces, whose gradients are added up: the same steps, up to floating-point noise, dropout's draws, and
        objectives that are not a mean over samples (each piece has its own, and counts by its samples). A batch is cut into equal
        pieces, so that no step has more samples than it: the number of pieces is the first divisor of the batch size from the number
        that is wanted on (of 12, at least 8 are 12). Code search is not cut up, and nothing is in a stage that shares its device with
        others (:mod:`bench.models.memory`). An objective or step that keeps something from call to call is then called again from the
        first step on: its progress falls back to 0, and what it kept is of an attempt that does not count.

        A model whose settings hold ``lora`` gets adapters for the time of the fit; they are merged into the weights that come back
        (:mod:`bench.models.lora`). A pass back is counted in full for it, though most weights need no gradient.

        Args:
            model: where training starts.
            samples: the training data.
            axis: seed axis of the order of the samples and of dropout.
            objective: the loss; cross-entropy by default.
            step: what a step minimises where that is more than the objective of the network's outputs.
            epochs: instead of the settings'; a fraction ends within the last pass.
            learning_rate: instead of the settings'.
            batch_size: instead of the settings'.
            parameters: ``head`` trains the head and freezes the encoder; ``embedding`` trains the input embeddings alone; neither
                uses adapters.
            select_best: return the epoch that is best on the validation data by the task's metric (the first among equals)
                instead of the last one; without validation data it is the last.
            shown: what the model reads in place of a sample, in training and in validation alike.

        Raises:
            DataError: a sample lacks a label or query, its label is no class of the task, or it has the wrong number of programs.
            ConfigError: ``head`` for code search, which has no head, or accumulation; the model has LoRA, and ``peft`` is missing.
            ModelError: the model has LoRA, and no layer with the target's name; memory runs out all the same.
            RuntimeError: memory runs out beside other stages (:func:`bench.models.memory.ran_out_of_memory` tells it); the harness runs
                this one again alone.
        """
        epochs = self.settings.epochs if epochs is None else epochs
        batch_size = batch_size or self.settings.batch_size
        valid = self._valid if select_best else ()
        if shown is not None:
            samples, valid = [shown(s) for s in samples], tuple(shown(s) for s in valid)
        data = _Batches(model, samples)
        if not samples or not epochs:
            self.history = []
            trained = model.copy()
            trained.cost = self._context.cost
            return trained
        work = _Fit(
            data=data,
            valid=valid,
            axis=axis,
            objective=objective or cross_entropy,
            step=step or _plain,
            epochs=epochs,
            rate=learning_rate,
            batch_size=batch_size,
            parameters=parameters,
        )
        pieces = equal_pieces(batch_size, self.settings.accumulation)
        if data.search and pieces > 1:
            raise ConfigError(f"accumulation = {pieces}: {_UNCUT}; set a smaller batch_size instead")
        while True:
            try:
                return self._fit(model, work, pieces)
            except RuntimeError as error:
                if not ran_out_of_memory(error) or not may_cut():
                    raise
                if data.search or pieces == batch_size:
                    raise ModelError(_too_large(data.search, batch_size // pieces)) from error
            # Outside the handler, whose traceback would keep the failed step in memory.
            pieces = equal_pieces(batch_size, 2 * pieces)
            self._context.log.warning("memory ran out: training starts again, each step in %d pieces", pieces)
            if model.device.type == "cuda":
                torch.cuda.empty_cache()

    def _fit(self, model: WhiteBox, work: _Fit, pieces: int) -> WhiteBox:
        """Train a copy, each step's batch in so many pieces."""
        self.history = []
        trained = model.copy()
        trained.cost = self._context.cost
        lora, adapters = model.settings.lora, None
        if lora is not None and work.parameters == "all":
            adapters = Adapters(trained.network.encoder, lora, axis_seed(self._context.seeds, work.axis, "lora"))
        frozen = _freeze(trained.network, work.parameters)
        rate = work.rate or self.learning_rate(model, adapters=adapters is not None)
        seed = axis_seed(self._context.seeds, work.axis, "fit")
        best = _BestEpoch(self, trained, work.valid, self.history, pieces)
        self._context.scratch.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryDirectory(dir=self._context.scratch) as folder,
            _global_state_kept(trained.device),
            launched_by_nobody(),
        ):
            loop = _Loop(
                model=trained.network,
                args=self._arguments(folder, seed, work, rate, pieces, trained.device),
                train_dataset=work.data,
                data_collator=work.data.collate,
                callbacks=[best, _Progress(self._context)],
            )
            loop.lend(trained, work, self.settings.scale, seed)
            loop.train()
        best.restore()
        if adapters is not None:
            adapters.merge()
        for parameter in frozen:
            parameter.requires_grad_(True)
        trained.network.zero_grad(set_to_none=True)
        trained.network.to(trained.device).eval()
        return trained

    def batches(self, model: WhiteBox, samples: Sequence[Sample], batch_size: int | None = None) -> Batches:
        """Labelled samples as batches, for methods with a loop of their own.

        Raises:
            DataError: as :meth:`fit`.
        """
        return Batches(model, samples, batch_size or self.settings.batch_size)

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Mean cross-entropy of what ``network(*batch.sides)`` gave, as in training (code search: of the scaled cosines)."""
        return functional.cross_entropy(outputs if batch.classes else outputs * self.settings.scale, batch.labels)

    def learning_rate(self, model: WhiteBox, *, adapters: bool | None = None) -> float:
        """The peak learning rate of a fit where none is given.

        Args:
            model: to be trained.
            adapters: adapters are trained, which take a higher rate; ``None`` where the model has LoRA. A method that trains all
                weights in a loop of its own says ``False``.
        """
        if self.settings.learning_rate:
            return self.settings.learning_rate
        if adapters is None:
            adapters = model.settings.lora is not None
        if adapters:
            return LORA_RATE
        return FRESH_RATE if model.name == "tiny" else PRETRAINED_RATE

    def _arguments(
        self, folder: str, seed: int, work: _Fit, rate: float, pieces: int, device: torch.device
    ) -> TrainingArguments:
        arguments = TrainingArguments(
            output_dir=folder,
            seed=seed % 2**32,
            num_train_epochs=work.epochs,
            per_device_train_batch_size=work.batch_size // pieces,
            gradient_accumulation_steps=pieces,
            learning_rate=rate,
            lr_scheduler_type="linear",
            # A warm-up starts at 0: of a single step nothing would be left.
            warmup_steps=self.settings.warmup if len(work.data) * work.epochs > work.batch_size else 0,
            weight_decay=self.settings.weight_decay,
            max_grad_norm=self.settings.max_grad_norm,
            optim="adamw_torch_fused",
            use_cpu=device.type == "cpu",
            eval_strategy="no",
            save_strategy="no",
            logging_strategy="no",
            logging_nan_inf_filter=False,
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
            dataloader_num_workers=0,
            dataloader_pin_memory=False,
        )
        arguments._n_gpu = min(arguments.n_gpu, 1)  # one device: DataParallel would change the result with the machine
        return arguments

    def metric(self, model: WhiteBox, samples: Sequence[Sample]) -> float:
        """The task's clean metric on labelled samples, in [0, 1]; NaN where the model's outputs are not finite.

        Accuracy; F1 of class 1; or the mean reciprocal rank of each query's own program among all programs of ``samples``.
        """
        return _metric(model, samples)


def equal_pieces(batch_size: int, wanted: int) -> int:
    """The least number of equal pieces of a batch that is at least ``wanted``; single samples where there is none."""
    return next((n for n in range(max(1, wanted), batch_size) if batch_size % n == 0), batch_size)


def _metric(model: WhiteBox, samples: Sequence[Sample]) -> float:
    if model.info.metric == "mrr":
        outputs = model.embed_queries(samples) @ model.embed_programs(samples).T
        if not np.isfinite(outputs).all():
            return float("nan")
        own = np.diagonal(outputs)[:, None]
        return float((1.0 / (1 + (outputs > own).sum(axis=1))).mean())
    outputs = model.predict(samples)
    if not np.isfinite(outputs).all():
        return float("nan")
    predicted = outputs.argmax(axis=1)
    labels = np.array([s.label for s in samples])
    if model.info.metric == "accuracy":
        return float((predicted == labels).mean())
    hits = int(((predicted == 1) & (labels == 1)).sum())
    claims = int((predicted == 1).sum()) + int((labels == 1).sum())
    return 2 * hits / claims if claims else 0.0


@dataclass(frozen=True)
class Batch:
    """Labelled samples as a network takes them.

    Attributes:
        sides: the programs of a sample, or its query and its program; on the model's device.
        labels: long, (n,): classes, or 0 … n-1 for code search (each query's own program).
        classes: the labels are classes; false for code search.
    """

    sides: tuple[Tokens, ...]
    labels: Tensor
    classes: bool

    @property
    def tokens(self) -> int:
        """Tokens of one pass, padding included."""
        return sum(side.ids.numel() for side in self.sides)


class Batches:
    """Labelled samples, tokenised once."""

    def __init__(self, model: WhiteBox, samples: Sequence[Sample], batch_size: int) -> None:
        self._data = _Batches(model, samples)
        self._size, self._device = batch_size, model.device

    def epoch(self, generator: torch.Generator) -> Iterator[Batch]:
        """Every sample once, in a new order: batches of similar length in random order, as in training."""
        order = list(_ByLength(self._data.lengths, self._size, generator))
        for start in range(0, len(order), self._size):
            made = self._data.collate(order[start : start + self._size])
            sides = tuple(side.to(self._device) for side in made["sides"])
            yield Batch(sides, made["labels"].to(self._device), not self._data.search)


class _Batches(Dataset[int]):
    """The training data, tokenised once; an item is its own index, and a batch is made from indices."""

    def __init__(self, model: WhiteBox, samples: Sequence[Sample]) -> None:
        self._pad_id = model.pad_id
        self.ids = [s.id for s in samples]
        self.search = model.info.kind is TaskKind.SEARCH
        self.labels = np.array([_label(s, model.info) for s in samples], dtype=np.int64)
        texts = [[s.query or "" for s in samples]] if self.search else []
        windows = [model.query_window] if self.search else []
        for side in range(2 if model.info.kind is TaskKind.PAIRS else 1):
            texts.append([s.programs[side] for s in samples])
            windows.append(model.window)
        self.sides: list[list[NDArray[np.int64]]] = [
            [np.array(row, dtype=np.int64) for row in model.token_ids(part, window)]
            for part, window in zip(texts, windows, strict=True)
        ]
        self.lengths = [max(len(row) for row in rows) for rows in zip(*self.sides, strict=True)]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> int:
        return index

    def collate(self, index: list[int]) -> dict[str, Any]:
        labels = np.arange(len(index)) if self.search else self.labels[index]
        sides = [pad([side[i] for i in index], self._pad_id) for side in self.sides]
        return {"labels": torch.from_numpy(labels), "sides": sides, "index": index}


def _label(sample: Sample, info: TaskInfo) -> int:
    programs = 2 if info.kind is TaskKind.PAIRS else 1
    if len(sample.programs) != programs:
        raise DataError(
            f"task {info.name!r} needs {programs} program(s) a sample, sample {sample.id!r} has {len(sample.programs)}"
        )
    if info.kind is TaskKind.SEARCH:
        if sample.query is None:
            raise DataError(f"sample {sample.id!r} has no query to train on")
        return -1
    if sample.label is None or not 0 <= sample.label < len(info.labels):
        raise DataError(
            f"sample {sample.id!r} has label {sample.label!r}; task {info.name!r} has classes 0 to {len(info.labels) - 1}"
        )
    return sample.label


@dataclass(frozen=True)
class _Fit:
    """What one fit was asked for."""

    data: _Batches
    valid: tuple[Sample, ...]
    axis: str
    objective: Objective
    step: Step
    epochs: float
    rate: float | None
    batch_size: int
    parameters: Trained


_UNCUT: Final = "code search is not trained in pieces, since each query is told from the other programs of its batch"


def _too_large(search: bool, samples: int) -> str:
    if search:
        return f"memory ran out on a batch of {samples} queries, and {_UNCUT}: set a smaller training batch_size or a shorter window"
    return "memory ran out on a single sample: set a shorter window, choose a smaller model, or train it with lora"


class _ByLength(Sampler[int]):
    """A new random order each epoch in which the rows of a batch have similar lengths and the batches come in random order."""

    def __init__(self, lengths: Sequence[int], batch_size: int, generator: torch.Generator) -> None:
        self._lengths, self._size, self._generator = lengths, batch_size, generator

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        order = torch.randperm(len(self._lengths), generator=self._generator).tolist()
        run = self._size * GROUPED_BATCHES
        whole: list[list[int]] = []
        rest: list[list[int]] = []
        for start in range(0, len(order), run):
            part = sorted(order[start : start + run], key=lambda i: self._lengths[i])
            cuts = [part[i : i + self._size] for i in range(0, len(part), self._size)]
            for batch in cuts:
                (whole if len(batch) == self._size else rest).append(batch)
        for at in torch.randperm(len(whole), generator=self._generator).tolist():
            yield from whole[at]
        # A short batch anywhere but at the end would shift the borders of all that follow.
        for batch in rest:
            yield from batch


class _Loop(transformers.Trainer):
    """The Trainer of ``transformers`` with the harness's order of samples, loss and counters."""

    def lend(self, handle: WhiteBox, work: _Fit, scale: float, seed: int) -> None:
        self.remove_callback(PrinterCallback)
        self._handle, self._work, self._batches, self._scale = handle, work, work.data, scale
        self._order = torch.Generator().manual_seed(seed)
        self._judge = next(c for c in self.callback_handler.callbacks if isinstance(c, _BestEpoch))
        self._step_samples = 0

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        return _ByLength(self._batches.lengths, self._work.batch_size, self._order)

    def get_batch_samples(self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device) -> Any:
        """The pieces of the next step."""
        pieces, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._step_samples = sum(len(piece["index"]) for piece in pieces)
        return pieces, items

    def _progress(self) -> float:
        """Epochs done, by steps. (The state's own count goes by pieces, of which a short last step has fewer.)"""
        steps = -(-len(self._batches) // self._work.batch_size)
        whole, more = divmod(self.state.global_step, steps)
        return whole + more / steps

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        network = cast(CodeNetwork, model)
        device = network.embedding.weight.device
        sides = [side.to(device) for side in inputs["sides"]]
        ids = [self._batches.ids[i] for i in inputs["index"]]

        def objective(outputs: Tensor) -> Tensor:
            logits = outputs * self._scale if self._batches.search else outputs
            return self._work.objective(logits, inputs["labels"].to(device), self._progress(), ids)

        loss = self._work.step(network, sides, objective)
        tokens = sum(side.ids.numel() for side in sides)
        self._handle.cost.forward(tokens)
        if self._work.parameters != "head":
            self._handle.cost.backward(tokens)
        # Their mean is taken over the pieces of a step: in the last step of an epoch these may have different sizes.
        loss = loss * (len(ids) * self.current_gradient_accumulation_steps / self._step_samples)
        self._judge.pieces.append(loss.detach())
        return (loss, None) if return_outputs else loss


class _BestEpoch(TrainerCallback):
    """Judges each epoch on the validation data and remembers the best weights, in memory."""

    def __init__(
        self, trainer: Trainer, model: WhiteBox, valid: Sequence[Sample], history: list[dict[str, Any]], pieces: int
    ) -> None:
        self.pieces: list[Tensor] = []
        """Losses of the pieces of the step that is being made."""
        self._losses: list[Tensor] = []
        self._pieces = pieces
        self._trainer, self._model, self._valid, self._history = trainer, model, valid, history
        self._best = -1.0
        self._weights: dict[str, Tensor] | None = None

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._losses.append(torch.stack(self.pieces).mean())
        self.pieces.clear()

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        row: dict[str, Any] = {"epoch": len(self._history) + 1, "loss": float(torch.stack(self._losses).mean())}
        if self._pieces > 1:
            row["pieces"] = self._pieces
        self._losses.clear()
        better = not self._valid
        if self._valid:
            value = self._trainer.metric(self._model, self._valid)
            row[self._model.info.metric] = value
            better = value > self._best  # never true of NaN
            if better:
                self._best = value
                self._weights = self._trainable()
        if better:
            for earlier in self._history:
                earlier["chosen"] = False
        self._history.append({**row, "chosen": better})

    def _trainable(self) -> dict[str, Tensor]:
        """Copies of all that training changes; a frozen language model would only double its memory."""
        network = self._model.network
        frozen = {k for k, v in network.named_parameters(remove_duplicate=False) if not v.requires_grad}
        return {k: v.detach().clone() for k, v in network.state_dict().items() if k not in frozen}

    def restore(self) -> None:
        """Put the best weights back into the model."""
        if self._weights is not None:
            self._model.network.load_state_dict(self._weights, strict=False)


class _Progress(TrainerCallback):
    """Moves the context's progress display on by one at every step."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._steps: Iterator[int] = iter(())

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._steps = self._context.progress(range(state.max_steps), "training")
        next(self._steps, None)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        next(self._steps, None)


def _plain(network: CodeNetwork, sides: Sequence[Tokens], objective: Callable[[Tensor], Tensor]) -> Tensor:
    return objective(network(*sides))


def _freeze(network: CodeNetwork, parameters: Trained) -> list[nn.Parameter]:
    if parameters == "all":
        return []
    kept = network.head_parameters() if parameters == "head" else [network.embedding.weight]
    if not kept:
        raise ConfigError("parameters='head' needs a head, and a code search model has none; train all parameters")
    trained = {id(p) for p in kept}
    frozen = [p for p in network.parameters() if p.requires_grad and id(p) not in trained]
    for parameter in frozen:
        parameter.requires_grad_(False)
    return frozen


@contextmanager
def _global_state_kept(device: torch.device) -> Iterator[None]:
    """The Trainer of ``transformers`` seeds the global generators and speaks; leave both as they were."""
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002 (it is theirs that is kept)
    devices = [device.index or 0] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices), quiet():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002
