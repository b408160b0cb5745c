"""Every family of published models from end to end: small random models of the real architectures, with tokenizers built on the spot.

```python -m tests.families``` runs them all and writes ``results/families.md``: one line a family. The weights are random, so the
figures say that a path works and nothing about the published models.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GPTBigCodeConfig,
    GPTBigCodeModel,
    PreTrainedModel,
    Qwen2Config,
    Qwen2Model,
    RobertaConfig,
    RobertaModel,
    T5Config,
    T5EncoderModel,
    T5ForConditionalGeneration,
)

from bench.contracts import TaskInfo, TaskKind
from bench.execute import Run
from bench.exporting import export
from bench.jobs import Stage, load_model, read_splits
from bench.models import WhiteBox, create
from bench.models.lora import Adapters
from bench.models.presets import PRESETS
from bench.pipeline import Builder, CellGraph, merge
from bench.plugins import Registry
from bench.records import Record
from bench.results import ResultsFolder
from bench.samples import Sample
from bench.store import Store
from bench.suite import CellPlan, cells, parse_suite
from tests.engine import PLUGINS
from tests.models_toys import context, one_thread
from tests.toy_plugins import function

INFO = TaskInfo("toy", TaskKind.CLASSIFICATION, "python", ("safe", "unsafe"), "accuracy")
WINDOW = 112
SIZES = {"train": 160, "valid": 24, "budget": 32, "test": 60}
TRAINING: dict[str, Any] = {"epochs": 16, "learning_rate": 0.003, "batch_size": 16}
ATTACK = {"name": "dead_code", "label": "dead_code", "policy": {"rate": 0.4}}
DEFENSES: dict[str, dict[str, Any]] = {
    "none": {},
    "elibadcode": {
        "clean": 16, "victims": 4, "iterations": 2, "top_k": 4, "width": 4, "starts": 2, "length": 2, "tolerance": 0.0,
        "epochs": 2, "batch_size": 4,
    },
    "dbs": {"clean": 16, "iterations": 4, "length": 3, "epochs": 2, "batch_size": 4},
    "fine_tuning": {"clean": 16, "epochs": 2, "batch_size": 4},
    "fine_pruning": {"clean": 16, "epochs": 2, "step": 0.2, "batch_size": 4},
    "anp": {"clean": 16, "iterations": 4, "batch_size": 8},
    "nad": {"clean": 16, "teacher_epochs": 2, "epochs": 2, "batch_size": 4},
    "ibau": {"clean": 16, "rounds": 1, "fixed_point": 1, "length": 2},
    "crow": {"clean": 16, "epochs": 2, "batch_size": 4},
    "strip": {"clean": 16, "copies": 2},
    "onion": {"clean": 16},
}  # fmt: skip
"""What runs on every family, with budgets that a random model is worth. (Several steps each: the first step of a warm-up has rate 0.)"""
FULL = tuple(DEFENSES)
SHORT = ("none", "elibadcode", "dbs", "fine_tuning", "strip")
"""What the tests run; the report runs all of them."""
KINDS = ("toy_pairs", "toy_search")
"""The tasks with other heads, or none: two programs side by side, and queries."""
OF_KINDS = ("none", "elibadcode", "fine_tuning")
ONE_OF_EACH = ("codebert", "codet5-base", "qwen2.5-coder-0.5b")
"""An encoder, an encoder-decoder and a language model with adapters: what the tasks of :data:`KINDS` are run with."""
KIND_PLUGINS = PLUGINS.with_name("kind_tasks.py")


# ------------------------------------------------------------------------------------------------------------ tokenizers


def corpus() -> list[str]:
    """A few programs."""
    rng = np.random.default_rng(0)
    texts = [function(rng, i % 2, i) for i in range(60)]
    return [*texts, "import random\nif random() < 0:\n    raise Exception('fail')\nwhile False:\n    print(x)\n"] * 2


def vocabulary(folder: Path, special: Sequence[str], entries: int = 400) -> Tokenizer:
    """A byte-level BPE of a few programs, as ``vocab.json`` and ``merges.txt``; the special tokens have the first ids."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=entries,
        special_tokens=[AddedToken(text, special=True) for text in special],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(corpus(), trainer)
    folder.mkdir(parents=True, exist_ok=True)
    backend.model.save(str(folder))
    return backend


def published(folder: Path, kind: str, **more: Any) -> None:
    """The file that tells ``transformers`` which class of tokenizer reads the folder."""
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind, **more}))


ROBERTA = {
    "bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "cls_token": "<s>", "sep_token": "</s>",
    "mask_token": "<mask>",
}  # fmt: skip
EXTRA = [f"<extra_id_{i}>" for i in range(4)]


# ---------------------------------------------------------------------------------------------------------------- models


def roberta(folder: Path, special: Sequence[str] = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")) -> PreTrainedModel:
    """CodeBERT and its kin: RoBERTa, with the two files of its tokenizer that CodeBERT publishes."""
    size = vocabulary(folder, special).get_vocab_size()
    published(folder, "RobertaTokenizer", **ROBERTA)
    return RobertaModel(
        RobertaConfig(
            vocab_size=size, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48, type_vocab_size=1,
            max_position_embeddings=130, pad_token_id=special.index("<pad>"), bos_token_id=special.index("<s>"),
            eos_token_id=special.index("</s>"),
        )
    )  # fmt: skip


def unixcoder(folder: Path) -> PreTrainedModel:
    """UniXcoder: the same, with other ids and its mode tokens among the entries."""
    return roberta(
        folder, ("<s>", "<pad>", "</s>", "<unk>", "<encoder-only>", "<decoder-only>", "<encoder-decoder>", "<mask>")
    )


def t5_config(size: int, **more: Any) -> T5Config:
    return T5Config(
        vocab_size=size, d_model=32, d_kv=16, d_ff=48, num_layers=2, num_heads=2, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        decoder_start_token_id=0, **more,
    )  # fmt: skip


def codet5(folder: Path) -> PreTrainedModel:
    """CodeT5 and CodeT5+: a whole T5 with its language-model head, a RoBERTa-like BPE and sentinels."""
    size = vocabulary(folder, ("<pad>", "<s>", "</s>", "<unk>", "<mask>", *EXTRA)).get_vocab_size()
    published(folder, "RobertaTokenizer", **ROBERTA, additional_special_tokens=EXTRA)
    return T5ForConditionalGeneration(t5_config(size + 6))  # its embedding is wider than its vocabulary


def codet5p_embedding(folder: Path) -> PreTrainedModel:
    """CodeT5+ 110M: a T5 encoder whose configuration asks for code of its own."""
    size = vocabulary(folder, ("<pad>", "<s>", "</s>", "<unk>", "<mask>", *EXTRA)).get_vocab_size()
    published(folder, "RobertaTokenizer", **ROBERTA, additional_special_tokens=EXTRA)
    return T5EncoderModel(t5_config(size + 6, is_encoder_decoder=False))


def as_codet5p_embedding(folder: Path) -> None:
    """Describe the saved encoder as the hub does: another model type, and code that must not run."""
    path = folder / "config.json"
    described = json.loads(path.read_text())
    described |= {"model_type": "codet5p_embedding", "architectures": ["CodeT5pEmbeddingModel"], "embed_dim": 8}
    described["auto_map"] = {
        "AutoConfig": "configuration_codet5p_embedding.CodeT5pEmbeddingConfig",
        "AutoModel": "modeling_codet5p_embedding.CodeT5pEmbeddingModel",
    }
    path.write_text(json.dumps(described))
    for name in ("configuration_codet5p_embedding", "modeling_codet5p_embedding"):
        (folder / f"{name}.py").write_text("raise SystemExit('code of a model was run')\n")


def starcoder(folder: Path) -> PreTrainedModel:
    """StarCoder: GPTBigCode with one shared key and value, digits apart, no padding token."""
    special = ("<|endoftext|>", "<fim_prefix>", "<fim_middle>", "<fim_suffix>", "<fim_pad>")
    backend = vocabulary(folder, special)
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.save(str(folder / "tokenizer.json"))
    end = special[0]
    published(
        folder, "GPT2Tokenizer", bos_token=end, eos_token=end, unk_token=end, additional_special_tokens=list(special)
    )
    config = GPTBigCodeConfig(
        vocab_size=backend.get_vocab_size(), n_positions=128, n_embd=32, n_layer=2, n_head=2, n_inner=48, multi_query=True,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return GPTBigCodeModel(config)


def qwen2(folder: Path) -> PreTrainedModel:
    """Qwen2.5-Coder: grouped queries, rotary positions, gated units, an embedding wider than the vocabulary."""
    special = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>")
    backend = vocabulary(folder, special)
    backend.save(str(folder / "tokenizer.json"))
    published(
        folder, "Qwen2Tokenizer", eos_token=special[0], pad_token=special[0], additional_special_tokens=list(special)
    )
    config = Qwen2Config(
        vocab_size=backend.get_vocab_size() + 16, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, tie_word_embeddings=True, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return Qwen2Model(config)


MAKERS: dict[str, Callable[[Path], PreTrainedModel]] = {
    "codebert": roberta,
    "graphcodebert": roberta,
    "unixcoder": unixcoder,
    "codet5-base": codet5,
    "codet5p-110m": codet5p_embedding,
    "codet5p-220m": codet5,
    "starcoderbase-1b": starcoder,
    "qwen2.5-coder-0.5b": qwen2,
    "qwen2.5-coder-1.5b": qwen2,
}
FAMILIES = (
    "codebert",
    "unixcoder",
    "codet5-base",
    "codet5p-110m",
    "codet5p-220m",
    "starcoderbase-1b",
    "qwen2.5-coder-0.5b",
)
"""One preset for each of the families; GraphCodeBERT is a CodeBERT and the larger Qwen a Qwen, as far as code here can tell."""


def on_disk(name: str, folder: Path) -> Path:
    """A small random model of a preset's architecture, saved as published."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        MAKERS[name](folder).save_pretrained(folder)
    if PRESETS[name].architecture == "codet5p_embedding":
        as_codet5p_embedding(folder)
    return folder


# --------------------------------------------------------------------------------------------------------------- running


@dataclass(frozen=True)
class Outcome:
    """What became of a family.

    Attributes:
        name: the preset.
        architecture: as the loaded encoder's configuration says.
        parameters: of encoder and head.
        trained: of these, or of the adapters and the head, those that a fit trains.
        lora: whether adapters were trained.
        records: by defense, of the attacked victim.
        figures: by defense, (share of clean test programs answered rightly, attack success rate, the same on the reference).
        seconds: of everything.
        fresh: the model that nobody has trained.
        store: of the stages' results.
        results: records and outcomes.
        graphs: of the cells.
    """

    name: str
    architecture: str
    parameters: int
    trained: int
    lora: bool
    records: dict[str, Record]
    figures: dict[str, tuple[float, float, float]]
    seconds: float
    fresh: WhiteBox
    store: Store
    results: ResultsFolder
    graphs: tuple[CellGraph, ...]

    def _graph(self, defense: str) -> tuple[CellGraph, Stage]:
        graph = next(g for g in self.graphs if g.coordinates.defense == defense)
        assert graph.score is not None
        return graph, graph.score

    def model(self, defense: str, role: str = "undefended") -> WhiteBox:
        """The stored model whose predictions a cell reads as ``undefended``, ``reference`` or ``defended``."""
        graph, score = self._graph(defense)
        stages = {stage.key: stage for stage in graph.stages}
        _, key = score.parents[role]
        entry = self.store.get(*stages[key].parents["model"])
        return load_model(entry, INFO, context(self.store.root))

    def test_samples(self) -> tuple[Sample, ...]:
        """The clean test programs."""
        _, score = self._graph("none")
        return read_splits(self.store.get(*score.parents["data"])).test

    def stored_probabilities(self, defense: str) -> dict[str, float]:
        """Of class 1, by clean test program, as the cell's outcomes hold them."""
        rows = pd.read_parquet(self.results.cells / f"{self.records[defense].coordinates.slug}.parquet")
        clean = rows[rows["part"] == "clean"]
        return dict(zip(clean["id"], clean["probability"].astype(float), strict=True))


@dataclass(frozen=True)
class Ran:
    """The cells of a small suite, run in this process."""

    plans: list[CellPlan]
    graphs: tuple[CellGraph, ...]
    store: Store
    results: ResultsFolder
    records: dict[str, Record]
    seconds: float


def run_cells(name: str, folder: Path, defenses: Sequence[str], task: dict[str, Any], epochs: int) -> Ran:
    """Train, poison, defend and score a small model of a preset through the harness."""
    started = time.perf_counter()
    place = on_disk(name, folder / "weights")
    window = {"path": str(place), "window": WINDOW, "query_window": 16}
    suite = parse_suite(
        {
            "name": "families",
            "tasks": [task],
            "models": [{"name": name, "label": name, "parameters": window}],
            "attacks": [ATTACK],
            "defenses": [{"name": each, "label": each, "parameters": DEFENSES[each]} for each in defenses],
            "training": TRAINING | {"epochs": epochs},
            "device": "cpu",
            "plugins": [str(PLUGINS), str(KIND_PLUGINS)],
        },
        "families",
    )
    registry = Registry().discover()
    for file in (PLUGINS, KIND_PLUGINS):
        registry.add_file(file)
    builder = Builder(suite)
    plans = list(cells(suite, registry))
    graphs = tuple(builder.cell(plan) for plan in plans)
    store = Store(folder / "store")
    report = Run(merge(graphs), store, lambda event: None).here(registry, show=False)
    results = ResultsFolder(folder / "results")
    records = {r.coordinates.defense: r for r in export(graphs, report, store, results, suite.name)}
    return Ran(plans, graphs, store, results, records, time.perf_counter() - started)


def run_kind(name: str, task: str, folder: Path) -> Ran:
    """A preset's architecture on a task of :data:`KINDS`: what is asked is that every step ends well, so two epochs do."""
    return run_cells(name, folder, OF_KINDS, {"name": task, "label": task}, epochs=2)


def run_family(name: str, folder: Path, defenses: Sequence[str] = FULL) -> Outcome:
    """A preset's architecture on the toy task, in this process."""
    started = time.perf_counter()
    ran = run_cells(name, folder, defenses, {"name": "toy", "label": "toy", "parameters": SIZES}, TRAINING["epochs"])
    plans, graphs, store, results, records = ran.plans, ran.graphs, ran.store, ran.results, ran.records
    settings = plans[0].model_settings
    fresh = create(name, INFO, (), settings, context(folder))
    everything = sum(p.numel() for p in fresh.network.parameters())
    trained = everything
    if settings.lora is not None:
        head = sum(p.numel() for p in fresh.network.head_parameters())
        trained = head + Adapters(fresh.copy().network.encoder, settings.lora, 0).trained
    return Outcome(
        name,
        fresh.network.encoder.config.model_type,
        everything,
        trained,
        settings.lora is not None,
        records,
        {defense: figures(results, record) for defense, record in records.items() if record.status.value == "ok"},
        time.perf_counter() - started,
        fresh,
        store,
        results,
        graphs,
    )


def figures(results: ResultsFolder, record: Record) -> tuple[float, float, float]:
    """(share of clean test programs answered rightly, attack success rate, the same on the reference) from stored outcomes."""
    rows = pd.read_parquet(results.cells / f"{record.coordinates.slug}.parquet")
    shares = rows.groupby("part")[["success", "reference_success"]].mean()
    clean, triggered = shares.loc["clean", "success"], shares.loc["triggered"]
    return float(clean), float(triggered["success"]), float(triggered["reference_success"])


# ---------------------------------------------------------------------------------------------------------------- report


def row(found: Outcome) -> str:
    """One line of the report."""
    steps = [f"{name} {_step(found.records[name])}" for name in found.records]
    clean, hit, floor = found.figures.get("none", (float("nan"),) * 3)
    how = "LoRA and head" if found.lora else "all"
    cells_ = [
        f"`{found.name}`", f"`{found.architecture}`", f"{found.parameters:,}", f"{how}: {found.trained:,}",
        f"{100 * clean:.0f}", f"{100 * hit:.0f} ({100 * floor:.0f})", ", ".join(steps), f"{found.seconds:.0f}",
    ]  # fmt: skip
    return "| " + " | ".join(cells_) + " |"


def kind_row(name: str, task: str, ran: Ran) -> str:
    """One line of the report's second table."""
    steps = ", ".join(f"{defense} {_step(record)}" for defense, record in ran.records.items())
    return f"| `{name}` | {task.removeprefix('toy_')} | {steps} | {ran.seconds:.0f} |"


def _step(record: Record) -> str:
    if record.status.value != "ok":
        return f"**{record.status.value}**: {record.reason}".replace("|", "/").replace("\n", " ")
    return "ok"


HEAD = """# Families of published models, from end to end

Small models with **random** weights, of the architectures that the presets name, each with a byte-level BPE trained on the spot on a few
programs. Nothing here is a result of a published model: no published weights were ever loaded by this project. What it shows is that for
each family data, training, poisoning (`dead_code`, two fifths of the victim class), each defense with a tiny budget, prediction and scoring
run through the harness and end in a record. `none` is the undefended cell (reference and victim trained); an inverting repair also ran on
the clean reference. Made by `python -m tests.families`; toy task, {sizes}, window {window}.

| preset | architecture | parameters | trained | ACC % | ASR % (reference) | steps | seconds |
|---|---|---|---|---|---|---|---|
"""


KINDS_TITLE = "## Pairs and code search"
KINDS_HEAD = f"""
{KINDS_TITLE}

The other two kinds of task have another head, or none: an encoder, an encoder-decoder and a language model, trained for two epochs on the
conformance suite's toy tasks, from data to record. What they learn is not asked here. Made by `python -m tests.families --kinds`.

| preset | task | steps | seconds |
|---|---|---|---|
"""


def report(found: Sequence[Outcome]) -> str:
    """The page without its second table."""
    sizes = ", ".join(f"{count} {part}" for part, count in SIZES.items())
    return HEAD.format(sizes=sizes, window=WINDOW) + "\n".join(row(each) for each in found) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run every family and write the report; 1 where a step did not end well."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("results/families.md"))
    parser.add_argument(
        "--kinds", action="store_true", help="run pairs and code search alone, and keep the first table"
    )
    parser.add_argument("families", nargs="*", default=list(MAKERS))
    given = parser.parse_args(arguments)
    unknown = [name for name in given.families if name not in MAKERS]
    if unknown:
        parser.error(f"no such family: {', '.join(unknown)}; there is: {', '.join(MAKERS)}")
    one_thread()
    records: list[Record] = []
    if given.kinds:
        first = given.output.read_text(encoding="utf-8").partition(f"\n{KINDS_TITLE}")[0]
    else:
        found = []
        for name in given.families:
            with tempfile.TemporaryDirectory() as folder:
                found.append(run_family(name, Path(folder)))
            print(row(found[-1]), flush=True)
            records += found[-1].records.values()
        first = report(found)
    rows = []
    for name in ONE_OF_EACH:
        for task in KINDS:
            with tempfile.TemporaryDirectory() as folder:
                ran = run_kind(name, task, Path(folder))
            rows.append(kind_row(name, task, ran))
            print(rows[-1], flush=True)
            records += ran.records.values()
    given.output.write_text(first.rstrip("\n") + "\n" + KINDS_HEAD + "\n".join(rows) + "\n", encoding="utf-8")
    return int(any(record.status.value != "ok" for record in records))


if __name__ == "__main__":
    sys.exit(main())
