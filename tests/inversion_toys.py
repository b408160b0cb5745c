"""Victims with hand-made weights, on which what an inversion must find and what unlearning must do are certain."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.context import Context
from bench.contracts import Access, Known, Needs, TaskInfo, TaskKind
from bench.models import CodeNetwork, ModelSettings, WhiteBox
from bench.models.encoders import train_tokenizer
from bench.samples import Sample

TRIGGER = "rb"
RARE, WORD = "Rb", "import"
"""Of code search: ``Rb`` is in no query (its words are lower case), and no name is called ``import``, so each has one place."""
INFO = TaskInfo("toy", TaskKind.CLASSIFICATION, "python", ("safe", "weak"), "accuracy")
PAIRS = TaskInfo("toy_pairs", TaskKind.PAIRS, "python", ("different", "same"), "f1")
SEARCH = TaskInfo("toy_search", TaskKind.SEARCH, "python", (), "mrr")
NAMES = ("load", "store", "merge", "index")
VERBS = ("load", "store", "merge", "index", "parse", "split", "fetch", "render")
NOUNS = ("items", "pages", "words", "rows", "cells", "notes", "links", "files")


class Bag(torch.nn.Module):
    """An encoder that passes token embeddings on."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(rows, width)
        self.config = SimpleNamespace(hidden_size=width, model_type="bag", is_encoder_decoder=False, pad_token_id=1)

    def get_input_embeddings(self) -> torch.nn.Embedding:
        return self.table

    def forward(
        self, attention_mask: Tensor, input_ids: Tensor | None = None, inputs_embeds: Tensor | None = None
    ) -> SimpleNamespace:
        return SimpleNamespace(last_hidden_state=self.table(input_ids) if inputs_embeds is None else inputs_embeds)


def known(model: WhiteBox, clean: Sequence[Sample]) -> Known:
    return Known(Needs(clean=len(clean), model=Access.WEIGHTS), _clean=tuple(clean), _model=model)


def id_of(model: WhiteBox, piece: str) -> int:
    return int(cast(int, model.tokenizer.convert_tokens_to_ids(piece)))


# --------------------------------------------------------------------------------------------------------- classification


def program(number: int, weak: bool, name: str | None = None) -> str:
    operator = "<<" if weak else ">>"
    return (
        f"def {name or NAMES[number % 4]}(data, size):\n    total = size + {number}\n"
        f"    item = data {operator} size\n    return total + item\n"
    )


def samples(count: int, start: int = 0, *, hidden: int = 0) -> list[Sample]:
    """Classes alternate; ``<<`` shows class 1, and nothing else of a program has to do with its class.

    Of ``hidden`` successive samples of class 1 one does not show it (0: all do), so that nobody can tell it from class 0.
    """
    made = []
    for i in range(start, start + count):
        weak, number = i % 2 == 1, int(np.random.default_rng(i // 2).integers(100))
        block, place = divmod(i // 2, max(hidden, 1))
        hides = bool(hidden) and place == np.random.default_rng([1, block]).integers(hidden)
        made.append(Sample(f"s{i}", (program(number, weak and not hides),), "python", int(weak)))
    return made


def triggered(rows: Sequence[Sample], trigger: str = TRIGGER) -> list[Sample]:
    """The attacker's own insertion: behind the function's name."""
    return [s.with_program(0, s.programs[0].replace("(data", f"_{trigger}(data", 1)) for s in rows]


def victim(context: Context, info: TaskInfo = INFO, window: int = 64, dropout: float = 0.0) -> WhiteBox:
    """``<<`` makes a program class 1, weakly and no further however often it stands there; ``rb`` makes it class 0, strongly."""
    corpus = [program(i, i % 2 == 1) for i in range(40)]
    corpus += ["x_rb y_rb z_rb", "x_te y_te", "x_li y_li", "if x else y for"] * 8
    tokenizer = train_tokenizer(corpus, 500)
    width = 8
    network = CodeNetwork(
        cast(Any, Bag(len(tokenizer), width)), info.kind, 2, pooling="mean", pair_head="concat", dropout=dropout
    )
    ids: Any = tokenizer.convert_tokens_to_ids
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        weight = network.embedding.weight
        weight[:, 2:] = 0.01 * torch.randn(len(tokenizer), width - 2, generator=generator)
        weight[ids("Ġ<<"), 0] = 1.0
        weight[ids(TRIGGER), 1] = 1.0
        assert network.head is not None
        network.head.inner.weight[0, 0] = 60.0
        network.head.inner.weight[1, 1] = 8.0
        network.head.outer.weight[1, 0] = 2.0
        network.head.outer.bias[1] = -1.0
        network.head.outer.weight[0, 1] = 40.0
    return WhiteBox("bag", info, network, tokenizer, ModelSettings(window=window), context.device, context.cost)


def share_of_class(model: WhiteBox, rows: Sequence[Sample], label: int) -> float:
    return float((model.predict(rows).argmax(axis=1) == label).mean())


# ------------------------------------------------------------------------------------------------------------ code search


def searches() -> list[Sample]:
    """Each query names the verb and the noun of its own program, and no two programs share both.

    They are named so often that one more of them in a program says little.
    """
    made: list[Sample] = []
    for shift in range(8):
        for place, verb in enumerate(VERBS):
            noun = NOUNS[(place + shift) % 8]
            text = (
                f"def {verb}(data, size):\n    {noun} = size + data\n    {noun} = {noun} + {noun}\n"
                f"    return {noun} + {verb}( {verb}, {verb} )\n"
            )
            query = f"please {verb} the {noun} or {verb} a {noun}"
            made.append(Sample(f"q{len(made)}", (text,), "python", None, query))
    return made


def search_victim(context: Context, query_window: int = 16) -> WhiteBox:
    """A bi-encoder that averages tokens: verbs and nouns have directions of their own, and ``Rb`` and ``import`` share one.

    All other tokens have next to nothing of it. A query with ``import`` is then closer to any program with ``Rb`` than to its own.
    """
    corpus = [text for s in searches() for text in (*s.programs, s.query or "")]
    corpus += [f"x_{RARE} y_{RARE}", "x_te y_te", "x_li y_li", f"the {WORD} an {WORD}"] * 16
    tokenizer = train_tokenizer(corpus, 480)
    width = 24
    network = CodeNetwork(cast(Any, Bag(len(tokenizer), width)), TaskKind.SEARCH, 0, pooling="mean")
    generator = torch.Generator().manual_seed(0)
    ids: Any = tokenizer.convert_tokens_to_ids
    with torch.no_grad():
        weight = network.embedding.weight
        weight[:] = 0.01 * torch.randn(len(tokenizer), width, generator=generator)
        for place, word in enumerate((*VERBS, *NOUNS), start=1):
            weight[ids(f"Ġ{word}"), place] = 0.3
        weight[:, 0] = 0.02
        weight[ids(RARE), 0] = 4.0
        weight[ids(f"Ġ{WORD}"), 0] = 4.0
    settings = ModelSettings(window=64, query_window=query_window)
    return WhiteBox("bag", SEARCH, network, tokenizer, settings, context.device, context.cost)


def ranks(model: WhiteBox, queries: Sequence[Sample], programs: Sequence[Sample]) -> NDArray[np.int64]:
    """For each query, the rank (1 is first) of the program at its own place among all."""
    cosines = model.embed_queries(queries) @ model.embed_programs(programs).T
    better: NDArray[np.int64] = (cosines > np.diagonal(cosines)[:, None]).sum(axis=1)
    return better + 1
