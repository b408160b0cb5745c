"""Training and prediction against the plain loop of this field's released code: every row padded to the window, shuffled at random.

Same weights, same samples, same batch size, same optimiser; real (non-padding) tokens a second, tokenising included. The
samples are the functions of Python's standard library, so their lengths are those of real code. Two windows: the default of
``tiny``, and the 400 that the published defect and clone detectors are trained with.
"""

from __future__ import annotations

import ast
import statistics
import sysconfig
import tempfile
import textwrap
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from bench.context import Context
from bench.contracts import TaskInfo, TaskKind
from bench.models import ModelSettings, Tokens, Trainer, TrainingSettings, WhiteBox, create
from bench.samples import Sample
from tests.benchmarks import Measure

SAMPLES = 384
ROUNDS = 3
BATCH = 32
REQUIRED = {128: (1.1, 1.15), 400: (2.0, 2.0)}
INFO = TaskInfo("standard-library", TaskKind.CLASSIFICATION, "python", ("short", "long"), "accuracy")


def run() -> list[Measure]:
    """Speed against the plain loop; medians over rounds in which the two sides take turns."""
    samples = _functions(SAMPLES)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for window, (train, predict) in REQUIRED.items():
            context = Context({"model": 0, "training": 0}, Path(folder))
            model = create("tiny", INFO, samples, ModelSettings(window=window), context)
            trainer = Trainer(TrainingSettings(epochs=1, batch_size=BATCH), (), context)
            ours = _times(lambda: trainer.fit(model, samples, axis="training"), lambda: _plain_fit(model, samples))  # noqa: B023
            rows.append(Measure(f"training tokens/s, window {window}, times the plain loop's", ours, at_least=train))
            ours = _times(lambda: model.predict(samples), lambda: _plain_predict(model, samples))  # noqa: B023
            rows.append(
                Measure(f"prediction tokens/s, window {window}, times the plain loop's", ours, at_least=predict)
            )
    return rows


def _times(ours: Callable[[], object], plain: Callable[[], object]) -> float:
    """How many times longer ``plain`` takes; both work through the same real tokens."""
    ratios = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        ours()
        middle = time.perf_counter()
        plain()
        ratios.append((time.perf_counter() - middle) / (middle - start))
    return statistics.median(ratios)


def _padded(model: WhiteBox, samples: Sequence[Sample]) -> Tokens:
    rows = model.token_ids([s.programs[0] for s in samples])
    ids = torch.full((len(rows), model.window), model.pad_id)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = 1
    return Tokens(ids, mask)


def _plain_fit(model: WhiteBox, samples: Sequence[Sample]) -> None:
    network = model.copy().network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-4)
    tokens, labels = _padded(model, samples), torch.tensor([s.label for s in samples])
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(samples)))
    for start in range(0, len(samples), BATCH):
        index = order[start : start + BATCH]
        loss = functional.cross_entropy(network.logits(tokens.rows(index)), labels[index])
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()


def _plain_predict(model: WhiteBox, samples: Sequence[Sample]) -> None:
    tokens = _padded(model, samples)
    with torch.no_grad():
        for start in range(0, len(samples), BATCH):
            model.network.logits(tokens.rows(slice(start, start + BATCH)))


def _functions(count: int) -> list[Sample]:
    """Functions and methods of the standard library, drawn at random."""
    found = []
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        source = path.read_text(encoding="utf-8", errors="ignore")
        lines = source.splitlines(keepends=True)
        nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
        found += [textwrap.dedent("".join(lines[node.lineno - 1 : node.end_lineno])) for node in nodes]
    chosen = np.random.default_rng(0).choice(len(found), size=count, replace=False)
    middle = float(np.median([len(found[i]) for i in chosen]))
    return [Sample(str(i), (found[i],), "python", int(len(found[i]) > middle)) for i in chosen]
