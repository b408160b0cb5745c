"""The graphics device: tokens a second and the share of its measured peak, for training, prediction and inversion; and how near its
numbers are to the processor's.

A RoBERTa of CodeBERT's size with random weights (what is computed does not hang on them), window 256, functions of the standard library.
Without a device the same is measured on the processor with a model of two layers, so that the measuring itself is seen to work; nothing is
required of it there.

The operations of a token are counted as is usual: two for each weight of the encoder that it is multiplied with, and 4 · layers · width ·
(length of its row) for attention; a pass back is two passes forward. The peak is what a product of two square matrices reaches in the
same type, not the figure of the maker. Tokens count their padding: it is computed, too; the waste that padding is stands beside.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import torch

from bench.context import Context, Cost
from bench.contracts import Known
from bench.models import ModelSettings, Trainer, TrainingSettings, WhiteBox, create
from bench.models.precision import TYPES, computing_in
from bench.samples import Sample
from defenses.repair.elibadcode import EliBadCode
from tests.benchmarks import Measure
from tests.benchmarks.models import INFO, _functions

BASE: Final = ModelSettings(layers=12, hidden=768, heads=12, vocabulary=8000, window=256, batch_tokens=65536)
SMALL: Final = ModelSettings(layers=2, hidden=128, heads=4, vocabulary=8000, window=256)
ACCURACY: Final = 2e-3
"""Of float32 on the device against the processor: the largest difference of a logit over the largest logit. TF32 products are off."""
FLIPS: Final = 0.005
ROUNDS: Final = 20


def run() -> list[Measure]:
    """Figures by type; the bounds hold for a graphics device alone."""
    graphics = torch.cuda.is_available()
    device = torch.device("cuda" if graphics else "cpu")
    count, settings = (2048, BASE) if graphics else (64, SMALL)
    samples = _functions(count)
    rows: list[Measure] = []
    with tempfile.TemporaryDirectory() as folder:
        context = Context({"model": 0, "training": 0, "defense": 0}, Path(folder), device=device)
        model = create("tiny", INFO, samples, settings, context)
        rows.append(Measure("padding: computed tokens over real ones, prediction", _padding(model, samples)))
        for name in ("float32", "bfloat16") if graphics else ("float32",):
            with computing_in(name):
                rows += _speeds(f"{device.type}, {name}", model, samples, context, _peak(device, TYPES[name]), graphics)
        if graphics:
            rows += _agreement(model, samples[:512], context)
    return rows


def _speeds(
    title: str, model: WhiteBox, samples: list[Sample], context: Context, peak: float, graphics: bool
) -> list[Measure]:
    """Tokens a second and share of the peak of three kinds of work, each done once before it is measured."""
    trainer = Trainer(TrainingSettings(epochs=1, batch_size=32), (), context)
    repair = EliBadCode(clean=min(200, len(samples)), iterations=10, patience=10)
    known = Known(needs=repair.needs, _clean=tuple(samples[: repair.clean]), _model=model)
    work: dict[str, Callable[[], object]] = {
        "training": lambda: trainer.fit(model, samples, axis="training"),
        "prediction": lambda: model.predict(samples),
        "inversion (EliBadCode, 10 iterations, with its unlearning)": lambda: _repaired(
            repair, known, context, trainer
        ),
    }
    rows = [Measure(f"{title}: peak of a square product, TFLOP/s", peak / 1e12)]
    for what, do in work.items():
        do()
        seconds, cost = _timed(do, model, context)
        tokens = cost.forward_tokens + cost.backward_tokens
        done = (cost.forward_tokens + 2 * cost.backward_tokens) * _operations(model)
        rows += [
            Measure(f"{title}: {what}, tokens/s (forward and back)", tokens / seconds),
            Measure(f"{title}: {what}, share of the peak", done / seconds / peak),
        ]
    return rows


def _repaired(repair: EliBadCode, known: Known, context: Context, trainer: Trainer) -> object:
    context.trainer = trainer
    return repair.repair(known, INFO, context)


def _timed(do: Callable[[], object], model: WhiteBox, context: Context) -> tuple[float, Cost]:
    context.cost = model.cost = Cost()
    _settle(model.device)
    started = time.perf_counter()
    do()
    _settle(model.device)
    return time.perf_counter() - started, context.cost


def _settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _operations(model: WhiteBox) -> float:
    """Of one token's pass forward through the encoder, at the longest row."""
    config = model.network.encoder.config
    table = model.network.embedding.weight.numel()
    weights = sum(p.numel() for p in model.network.encoder.parameters() if p.ndim > 1) - table
    return 2.0 * weights + 4.0 * config.num_hidden_layers * config.hidden_size * model.window


def _peak(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of the best of some products of square matrices."""
    size = 8192 if device.type == "cuda" else 1024
    one, other = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    best = 0.0
    for _ in range(ROUNDS):
        _settle(device)
        started = time.perf_counter()
        one @ other
        _settle(device)
        best = max(best, 2.0 * size**3 / (time.perf_counter() - started))
    return best


def _padding(model: WhiteBox, samples: list[Sample]) -> float:
    model.cost = Cost()
    model.predict(samples)
    return model.cost.forward_tokens / sum(len(row) for row in model.token_ids([s.programs[0] for s in samples]))


def _agreement(model: WhiteBox, samples: list[Sample], context: Context) -> list[Measure]:
    """The same trained weights on both."""
    trained = Trainer(TrainingSettings(epochs=1, batch_size=32), (), context).fit(model, samples, axis="training")
    here = WhiteBox(
        trained.name, INFO, trained.copy().network, trained.tokenizer, trained.settings, torch.device("cpu"), Cost()
    )
    exact = here.predict(samples)
    rows = []
    for name, far, flips in (("float32", ACCURACY, FLIPS), ("bfloat16", None, None)):
        with computing_in(name):
            found = trained.predict(samples)
        distance = float(np.abs(found - exact).max() / np.abs(exact).max())
        flipped = float((found.argmax(1) != exact.argmax(1)).mean())
        rows += [
            Measure(
                f"device ({name}) against processor: largest difference of a logit, relative", distance, at_most=far
            ),
            Measure(f"device ({name}) against processor: share of answers that differ", flipped, at_most=flips),
        ]
    return rows
