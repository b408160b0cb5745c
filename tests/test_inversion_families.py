"""The same inversion through the handle for every family of encoders: small models with random weights, from folders."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import (
    BertConfig,
    BertModel,
    CodeGenConfig,
    ElectraConfig,
    GPT2Config,
    GPT2Model,
    LlamaConfig,
    ModernBertConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
    T5Config,
    T5Model,
)

from bench.context import Context
from bench.contracts import TaskInfo, TaskKind
from bench.errors import ModelError
from bench.models import ModelSettings, Tokens, Trainer, TrainingSettings, WhiteBox, create, load
from bench.models.encoders import is_causal
from bench.models.memory import beside_others
from bench.models.settings import Pooling
from bench.samples import Sample
from defenses.inversion.claims import Claim, claims_of
from defenses.inversion.objective import TowardsClass
from defenses.inversion.scoring import Row, Scorer, scorer_for
from defenses.repair.elibadcode import EliBadCode
from tests.inversion_toys import known, victim
from tests.models_toys import CLONES, DEFECTS, INFOS, SEARCH, TOYS, defects, one_thread, searches

SIZES: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
OFF: dict[str, Any] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


class Family(NamedTuple):
    """How a small model of a family is made, and how its token vectors become one."""

    make: Callable[[Path], PreTrainedModel]
    pooling: Pooling
    pooled: str


@cache
def corpus() -> tuple[str, ...]:
    return (*(s.programs[0] for s in (*defects(40), *searches(40))), *(s.query or "" for s in searches(28)))


def saved(folder: Path, backend: Tokenizer, names: dict[str, str]) -> int:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **names)  # type: ignore[no-untyped-call]
    tokenizer.save_pretrained(folder)
    return len(tokenizer)


def byte_level(folder: Path, names: dict[str, str], template: str | None) -> int:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(names.values()),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(corpus(), trainer)
    close(backend, names, template)
    return saved(folder, backend, names)


def close(backend: Tokenizer, names: dict[str, str], template: str | None) -> None:
    if template is not None:
        used = [(token, backend.token_to_id(token)) for token in names.values() if token in template]
        backend.post_processor = processors.TemplateProcessing(single=template, special_tokens=used)


def roberta(folder: Path) -> PreTrainedModel:
    names = {
        "bos_token": "<s>",
        "pad_token": "<pad>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "mask_token": "<mask>",
    }
    size = byte_level(folder, names, "<s> $A </s>")
    return RobertaModel(
        RobertaConfig(vocab_size=size, max_position_embeddings=66, type_vocab_size=1, pad_token_id=1, **SIZES, **OFF)
    )


def bert(folder: Path) -> PreTrainedModel:
    names = {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    }
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=list(names.values()), show_progress=False)
    backend.train_from_iterator([*corpus(), "work_alpha"], trainer)
    close(backend, names, "[CLS] $A [SEP]")
    size = saved(folder, backend, names)
    return BertModel(BertConfig(vocab_size=size, max_position_embeddings=64, pad_token_id=0, **SIZES, **OFF))


def t5(folder: Path) -> PreTrainedModel:
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=list(names.values()), show_progress=False)
    backend.train_from_iterator([*corpus(), "work_alpha"], trainer)
    close(backend, names, "$A </s>")
    size = saved(folder, backend, names)
    config = T5Config(
        vocab_size=size, d_model=32, d_kv=16, d_ff=48, num_layers=2, num_heads=2, dropout_rate=0.0, pad_token_id=0, eos_token_id=1
    )  # fmt: skip
    config.decoder_start_token_id = 0
    return T5Model(config)


def gpt2(folder: Path) -> PreTrainedModel:
    size = byte_level(
        folder, {"eos_token": "<|endoftext|>"}, None
    )  # no padding, unknown or mask token, nothing around a text
    config = GPT2Config(
        vocab_size=size, n_positions=64, n_embd=32, n_layer=2, n_head=2, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return GPT2Model(config)


FAMILIES = {
    "roberta": Family(roberta, "auto", "first"),
    "bert": Family(bert, "auto", "first"),
    "t5 encoder": Family(t5, "mean", "mean"),
    "t5": Family(t5, "auto", "last"),
    "gpt2": Family(gpt2, "auto", "last"),
}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    one_thread()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made: dict[str, Path] = {}
    with torch.random.fork_rng():
        for name, family in FAMILIES.items():
            torch.manual_seed(0)
            made[name] = tmp_path_factory.mktemp(name.replace(" ", "_"))
            family.make(made[name]).save_pretrained(made[name])
    return made


@pytest.fixture(params=list(FAMILIES))
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def context(tmp_path: Path) -> Context:
    made = Context({"defense": 3, "model": 0}, tmp_path)
    made.trainer = Trainer(TrainingSettings(), (), made)
    return made


def opened(folders: dict[str, Path], family: str, info: TaskInfo, context: Context) -> WhiteBox:
    settings = ModelSettings(window=60, query_window=20, dropout=0.0, pooling=FAMILIES[family].pooling)
    return create(str(folders[family]), info, (), settings, context)


def plugin(**parameters: Any) -> EliBadCode:
    return EliBadCode(
        **{
            "clean": 12,
            "victims": 3,
            "iterations": 1,
            "top_k": 4,
            "width": 4,
            "starts": 2,
            "length": 2,
            "tolerance": 0.0,
            **parameters,
        }
    )


def claim_of(model: WhiteBox, clean: Sequence[Sample], scorer: Scorer) -> Claim:
    """The direction 1 -> 0, or the one claim of code search."""
    own = plugin()
    vocabulary = own.vocabulary(model, model.info)
    return claims_of(model, scorer, clean, model.info, vocabulary, victims=3, length=2, place=own.place())[-1]


# -------------------------------------------------------------------------------------------------------------- pooling


def test_a_causal_decoder_pools_its_last_token_by_default(folders: dict[str, Path], context: Context) -> None:
    for name, family in FAMILIES.items():
        assert opened(folders, name, DEFECTS, context).network.pooling == family.pooled
    assert opened(folders, "gpt2", SEARCH, context).network.pooling == "last"
    assert opened(folders, "roberta", SEARCH, context).network.pooling == "mean"


def test_the_first_token_of_a_causal_decoder_says_nothing_of_the_program(
    folders: dict[str, Path], context: Context
) -> None:
    model = opened(folders, "gpt2", DEFECTS, context)
    rows = [
        Sample(str(i), (f"def work{ending}",), "python", 0) for i, ending in enumerate(["(a)", "_rb(b):\n    return 1"])
    ]
    assert model.token_ids([s.programs[0] for s in rows])[0][0] == model.token_ids([s.programs[0] for s in rows])[1][0]
    first, last = (model.features(rows, pooling=how) for how in (cast(Any, "first"), "head"))
    np.testing.assert_allclose(first[0], first[1], atol=1e-6)
    assert np.abs(last[0] - last[1]).max() > 1e-3


def test_which_configurations_are_causal_decoders() -> None:
    def of(*kinds: type[PretrainedConfig]) -> list[bool]:
        return [is_causal(kind()) for kind in kinds]

    assert of(GPT2Config, LlamaConfig, CodeGenConfig) == [True] * 3
    # Bidirectional, though transformers has a causal head for most of them too.
    assert of(BertConfig, RobertaConfig, ElectraConfig, ModernBertConfig) == [False] * 4
    assert of(T5Config) == [False]  # a decoder behind an encoder, told by ``is_encoder_decoder``


def test_a_chosen_pooling_is_obeyed_and_saved_with_a_decoder(
    folders: dict[str, Path], context: Context, tmp_path: Path
) -> None:
    settings = ModelSettings(window=60, query_window=20, dropout=0.0, pooling="mean")
    model = create(str(folders["gpt2"]), DEFECTS, (), settings, context)
    assert model.network.pooling == "mean"
    model = opened(folders, "gpt2", DEFECTS, context)
    model.save(tmp_path / "kept")
    back = load(tmp_path / "kept", DEFECTS, model.device, context.cost)
    assert back.network.pooling == "last"
    np.testing.assert_array_equal(back.predict(defects(4)), model.predict(defects(4)))


# ------------------------------------------------------------------------------------------------- gradients and losses


@pytest.mark.parametrize("kind", list(TaskKind))
def test_the_gradient_at_the_one_hot_agrees_with_finite_differences(
    folders: dict[str, Path], family: str, kind: TaskKind, context: Context
) -> None:
    model = opened(folders, family, INFOS[kind], context)
    scorer = scorer_for(model)
    network = scorer.model.network.double()
    if "t5" not in family:
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.mul_(2.0)  # fresh weights are so small that the loss hardly moves (a T5's are larger)
    objective = claim_of(model, TOYS[kind](8), scorer).objective
    rows = [each for sites in all_sites(objective) for each in sites]
    used = {t for site in rows for t in (*site.before, *site.after, *(site.other or ()))}
    free = [t for t in objective.parts[0].vocabulary.ids if t not in used]
    strings, start = [], 0
    for part in objective.parts:
        strings.append(tuple(free[start : start + part.size]))
        start += part.size
    assert start <= len(free)
    slope = objective.slope([objective.rows[list(string)] for string in strings])
    assert slope.loss == pytest.approx(objective.loss(strings), rel=1e-4)
    # T5's norms compute in float32, whatever the weights, and the others curve more.
    generator, step = torch.Generator().manual_seed(0), 1e-3 if "t5" in family else 1e-4
    weight = network.embedding.weight
    for axis, string in enumerate(strings):
        for place in range(len(string)):
            direction = torch.randn(weight.shape[1], generator=generator, dtype=torch.float64)
            original, values = weight[string[place]].detach().clone(), []
            for sign in (1, -1):
                with torch.no_grad():
                    weight[string[place]] = original + sign * step * direction
                values.append(objective.loss(strings))
            with torch.no_grad():
                weight[string[place]] = original
            difference = (values[0] - values[1]) / (2 * step)
            found = float(slope.gradients[axis][place].double() @ direction)
            assert found == pytest.approx(difference, rel=0, abs=0.02 * float(slope.gradients[axis][place].norm()))
        assert float(slope.gradients[axis].norm(dim=1).min()) > 1e-5


def all_sites(objective: Any) -> list[Any]:
    return [objective.sites] if isinstance(objective, TowardsClass) else list(objective.sites)


@pytest.mark.parametrize("kind", list(TaskKind))
@pytest.mark.parametrize("batch_tokens", [8192, 90])
def test_scores_by_batches_are_the_models_own_outputs(
    folders: dict[str, Path], family: str, kind: TaskKind, batch_tokens: int, context: Context
) -> None:
    model, rows = opened(folders, family, INFOS[kind], context), TOYS[kind](7)
    scorer = Scorer(scorer_for(model).model, batch_tokens=batch_tokens)
    sides = [model.token_ids([s.programs[i] for s in rows]) for i in range(len(rows[0].programs))]
    asked = [Row(*(tuple(ids) for ids in both)) for both in zip(*sides, strict=True)]
    if kind is TaskKind.SEARCH:
        assert scorer.vectors(asked) == pytest.approx(model.embed_programs(rows), abs=1e-5)
        gaps = scorer.every_loss(asked, rows)
        cosines = (model.embed_queries(rows) * model.embed_programs(rows)).sum(axis=1)
        assert gaps[:, 0] == pytest.approx(1 - cosines, abs=1e-5)
    else:
        logits = model.predict(rows).astype(np.float64)
        expected = np.log(np.exp(logits).sum(axis=1)) - logits[:, 1]
        assert scorer.losses(asked, 1) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("info", [DEFECTS, CLONES], ids=lambda info: info.kind.value)
def test_a_batch_that_does_not_fit_the_memory_is_halved_and_gives_the_same(
    folders: dict[str, Path], info: TaskInfo, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = opened(folders, "roberta", info, context)
    own = plugin()
    rows = TOYS[info.kind](24)
    (*_, claim) = claims_of(
        model, scorer_for(model), rows, info, own.vocabulary(model, info), victims=12, length=2, place=own.place()
    )
    objective = claim.objective
    assert isinstance(objective, TowardsClass)
    trigger = objective.parts[0].vocabulary.ids[: objective.parts[0].size]
    embedding = objective.rows[list(trigger)]
    losses, slope = objective.encode(0, [trigger], range(12)), objective.slope([embedding])
    objective.scorer._seconds.clear()
    honest, sizes = objective.scorer.model.network.vector, list[int]()

    def short_of_memory(tokens: Tokens) -> Tensor:
        if len(tokens) > 5:
            raise torch.OutOfMemoryError("pretended")
        sizes.append(len(tokens))
        return honest(tokens)

    monkeypatch.setattr(objective.scorer.model.network, "vector", short_of_memory)
    assert objective.encode(0, [trigger], range(12)) == pytest.approx(losses, abs=1e-6)
    again = objective.slope([embedding])
    assert again.encoded[0] == pytest.approx(slope.encoded[0], abs=1e-6)
    torch.testing.assert_close(again.gradients[0], slope.gradients[0], atol=1e-7, rtol=1e-4)
    assert max(sizes) <= 5 < 12 <= sum(sizes)


def test_a_single_row_that_does_not_fit_is_an_error(
    folders: dict[str, Path], context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = opened(folders, "roberta", DEFECTS, context)
    scorer = scorer_for(model)

    def no_memory(tokens: Tokens) -> Tensor:
        raise torch.OutOfMemoryError("pretended")

    monkeypatch.setattr(scorer.model.network, "vector", no_memory)
    with pytest.raises(torch.OutOfMemoryError, match="pretended"):
        scorer.logits([Row((1, 2)), Row((1, 3))])


@pytest.mark.parametrize("kind", [torch.OutOfMemoryError, RuntimeError])
def test_beside_other_stages_no_batch_is_halved(
    kind: type[RuntimeError], folders: dict[str, Path], context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = scorer_for(opened(folders, "roberta", DEFECTS, context))
    honest, rows = scorer.model.network.vector, [Row((1, 2)), Row((1, 3))]

    def memory_for_one(tokens: Tokens) -> Tensor:
        if len(tokens) > 1:
            raise kind("CUBLAS_STATUS_ALLOC_FAILED, pretended")  # torch has a type for it, libraries below have not
        return honest(tokens)

    monkeypatch.setattr(scorer.model.network, "vector", memory_for_one)
    assert len(scorer.logits(rows)) == 2
    with beside_others(True), pytest.raises(kind, match="pretended"):
        scorer.logits(rows)


# ------------------------------------------------------------------------------------------------------------ the whole


@pytest.mark.parametrize("kind", list(TaskKind))
def test_the_repair_runs_from_end_to_end(
    folders: dict[str, Path], family: str, kind: TaskKind, context: Context
) -> None:
    model, clean = opened(folders, family, INFOS[kind], context), TOYS[kind](12)
    before = model.fingerprint()
    repaired = plugin(epochs=1, learning_rate=1e-4, batch_size=4).repair(known(model, clean), INFOS[kind], context)
    names = ["trigger->word"] if kind is TaskKind.SEARCH else ["0->1", "1->0"]
    assert list(repaired.inversions) == names
    for found in repaired.inversions.values():
        assert math.isfinite(found.loss)
        assert found.facts["iterations"] == 1
        assert "".join(found.tokens).strip().replace("_", "a").isalnum()
        assert len(found.word) == (2 if kind is TaskKind.SEARCH else 0)
    assert any(found.unlearned for found in repaired.inversions.values())
    assert repaired.model.fingerprint() != before == model.fingerprint()
    assert all(parameter.isfinite().all() for parameter in repaired.model.network.parameters())


@pytest.mark.parametrize("variant", ["paper", "release"])
def test_the_other_variants_run_for_every_family(
    folders: dict[str, Path], family: str, variant: str, context: Context
) -> None:
    model = opened(folders, family, CLONES, context)
    repaired = plugin(variant=variant, beta=0.0).repair(known(model, TOYS[TaskKind.PAIRS](12)), CLONES, context)
    assert sum(found.unlearned for found in repaired.inversions.values()) <= 1
    assert all(found.facts["iterations"] == 1 for found in repaired.inversions.values())


class WithoutTable(torch.nn.Module):
    """An encoder whose inputs are not looked up in a table of embeddings."""

    def __init__(self, instead: torch.nn.Module | None) -> None:
        super().__init__()
        self.instead = instead

    def get_input_embeddings(self) -> torch.nn.Module | None:
        return self.instead


@pytest.mark.parametrize("instead", [None, torch.nn.Linear(4, 4)])
def test_a_model_without_input_embeddings_is_refused(context: Context, instead: torch.nn.Module | None) -> None:
    model = victim(context)
    model.network.encoder = cast(Any, WithoutTable(instead))
    with pytest.raises(ModelError, match="'bag' has none"):
        plugin().repair(known(model, defects(8)), DEFECTS, context)
