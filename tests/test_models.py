"""What the model handles promise: order, independence of rows, windows, gradients, files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.context import Cost
from bench.contracts import TaskInfo, TaskKind
from bench.errors import DataError, ModelError
from bench.models import BlackBox, ModelSettings, Tokens, WhiteBox, create, load
from bench.models.memory import beside_others
from bench.models.tokens import batches, pad
from bench.samples import Sample
from tests.models_toys import (
    CLONES,
    DEFECTS,
    INFOS,
    SEARCH,
    SMALL,
    TOYS,
    clones,
    context,
    defects,
    one_thread,
    searches,
)

CPU = torch.device("cpu")
ODD = ("", "x", "é", "naïve = '日本語 🐍'\n", "x = 1\n" * 400, "\r\n\t ", "a\x00b")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    one_thread()


@pytest.fixture
def made(tmp_path: Path) -> dict[TaskKind, WhiteBox]:
    return {kind: create("tiny", INFOS[kind], toy(60), SMALL, context(tmp_path)) for kind, toy in TOYS.items()}


def odd_samples(info: TaskInfo) -> list[Sample]:
    sides = 2 if info.kind is TaskKind.PAIRS else 1
    query = "find" if info.kind is TaskKind.SEARCH else None
    return [Sample(str(i), (text,) * sides, "python", 0, query) for i, text in enumerate(ODD)]


def outputs(model: BlackBox, samples: Sequence[Sample]) -> NDArray[np.float32]:
    return model.embed_programs(samples) if model.info.kind is TaskKind.SEARCH else model.predict(samples)


def decode(model: WhiteBox, ids: list[int]) -> str:
    return str(model.tokenizer.decode(ids, clean_up_tokenization_spaces=False))


# -------------------------------------------------------------------------------------------------------------- batches


def test_batches_cover_every_row_once_under_the_budget_longest_first() -> None:
    lengths = np.random.default_rng(1).integers(1, 90, size=200).tolist()
    cut = list(batches(lengths, 256))
    assert sorted(i for batch in cut for i in batch) == list(range(200))
    assert all(len(b) * max(lengths[i] for i in b) <= 256 for b in cut)
    ordered = [lengths[i] for b in cut for i in b]
    assert ordered == sorted(ordered, reverse=True)


def test_a_row_longer_than_the_budget_is_a_batch_of_its_own() -> None:
    assert list(batches([6, 100, 3], 10)) == [[1], [0], [2]]
    assert list(batches([], 10)) == []


def test_padding_by_hand() -> None:
    tokens = pad([[5, 6, 7], [8], []], pad_id=1)
    assert tokens.ids.tolist() == [[5, 6, 7], [8, 1, 1], [1, 1, 1]]
    assert tokens.mask.tolist() == [[1, 1, 1], [1, 0, 0], [1, 0, 0]]
    assert tokens.rows([1]).ids.tolist() == [[8, 1, 1]]
    assert len(pad([], pad_id=1)) == 0


# -------------------------------------------------------------------------------------------------------------- outputs


@pytest.mark.parametrize("kind", list(TaskKind))
def test_a_row_does_not_depend_on_the_others_and_the_order_is_kept(
    made: dict[TaskKind, WhiteBox], kind: TaskKind
) -> None:
    model, samples = made[kind], TOYS[kind](40, seed=3) + tuple(odd_samples(INFOS[kind]))
    together = outputs(model, samples)
    alone = np.concatenate([outputs(model, [s]) for s in samples])
    shuffled = np.random.default_rng(0).permutation(len(samples))
    narrow = WhiteBox(
        "tiny", model.info, model.network, model.tokenizer, SMALL.model_copy(update={"batch_tokens": 50}), CPU, Cost()
    )
    assert np.isfinite(together).all()
    np.testing.assert_allclose(together, alone, atol=2e-6)
    np.testing.assert_allclose(outputs(model, [samples[i] for i in shuffled]), together[shuffled], atol=2e-6)
    np.testing.assert_allclose(outputs(narrow, samples), together, atol=2e-6)


def test_no_samples_give_no_rows(made: dict[TaskKind, WhiteBox]) -> None:
    assert made[TaskKind.CLASSIFICATION].predict([]).shape == (0, 2)
    assert made[TaskKind.PAIRS].predict([]).shape == (0, 2)
    assert made[TaskKind.SEARCH].embed_queries([]).shape == (0, 32)
    assert made[TaskKind.CLASSIFICATION].features([]).shape == (0, 32)


def test_predictions_are_the_networks_logits(made: dict[TaskKind, WhiteBox]) -> None:
    for kind, samples in ((TaskKind.CLASSIFICATION, defects(7)), (TaskKind.PAIRS, clones(7))):
        model = made[kind]
        sides = [model.tokenize([s.programs[i] for s in samples]) for i in range(len(samples[0].programs))]
        with torch.no_grad():
            expected = model.network.logits(*sides).numpy()
        np.testing.assert_allclose(model.predict(samples), expected, atol=2e-6)


def test_the_vectors_of_search_are_unit_and_their_products_the_similarity(made: dict[TaskKind, WhiteBox]) -> None:
    model, samples = made[TaskKind.SEARCH], searches(9)
    queries, programs = model.embed_queries(samples), model.embed_programs(samples)
    np.testing.assert_allclose(np.linalg.norm(queries, axis=1), 1, atol=1e-5)
    with torch.no_grad():
        expected = model.network.similarity(
            model.network.vector(model.tokenize([s.query or "" for s in samples], model.query_window)),
            model.network.vector(model.tokenize([s.programs[0] for s in samples])),
        )
    np.testing.assert_allclose(queries @ programs.T, expected.numpy(), atol=2e-6)


def test_what_does_not_fit_the_task_is_refused(made: dict[TaskKind, WhiteBox]) -> None:
    with pytest.raises(TypeError, match="no classes"):
        made[TaskKind.SEARCH].predict(searches(1))
    with pytest.raises(TypeError, match="no classes"):
        made[TaskKind.SEARCH].network.logits(pad([[3]], 1))
    with pytest.raises(DataError, match="needs 2"):
        made[TaskKind.PAIRS].predict(defects(1))
    with pytest.raises(DataError, match="no query"):
        made[TaskKind.SEARCH].embed_queries(defects(1))
    with pytest.raises(DataError, match="none at side 1"):
        made[TaskKind.SEARCH].embed_programs(searches(1), side=1)


@pytest.mark.parametrize("kind", [torch.OutOfMemoryError, RuntimeError])
def test_batches_are_halved_when_memory_runs_out(
    kind: type[RuntimeError], made: dict[TaskKind, WhiteBox], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, samples = made[TaskKind.CLASSIFICATION], defects(30)
    expected, sizes, honest = model.predict(samples), [], model.network.vector

    def short_of_memory(tokens: Tokens) -> Tensor:
        if len(tokens) > 4:
            raise kind("CUDA error: out of memory, pretended")  # torch has a type for it, libraries below it have not
        sizes.append(len(tokens))
        return honest(tokens)

    monkeypatch.setattr(model.network, "vector", short_of_memory)
    np.testing.assert_allclose(model.predict(samples), expected, atol=2e-6)
    assert max(sizes) <= 4
    with beside_others(True), pytest.raises(kind, match="pretended"):
        model.predict(samples)  # the stage is run again alone: see test_sharing

    def broken(tokens: Tokens) -> Tensor:
        sizes.append(len(tokens))
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(model.network, "vector", broken)
    sizes.clear()
    with pytest.raises(RuntimeError, match="device-side"):
        model.predict(samples)
    assert len(sizes) == 1, "no smaller batch would mend it"


def test_a_black_box_gives_the_same_outputs_and_no_weights(made: dict[TaskKind, WhiteBox]) -> None:
    model = made[TaskKind.CLASSIFICATION]
    box = model.outputs()
    np.testing.assert_array_equal(box.predict(defects(5)), model.predict(defects(5)))
    assert not isinstance(box, WhiteBox)
    assert not any(isinstance(v, WhiteBox | torch.nn.Module) for v in vars(box).values())


def test_forward_tokens_are_counted_with_their_padding(made: dict[TaskKind, WhiteBox]) -> None:
    model = made[TaskKind.CLASSIFICATION]
    model.cost = Cost()
    samples = defects(6)
    model.predict(samples)
    assert model.cost.forward_tokens == 6 * max(len(r) for r in model.token_ids([s.programs[0] for s in samples]))


# ------------------------------------------------------------------------------------------------------------- features


def test_features_by_layer_and_pooling(made: dict[TaskKind, WhiteBox]) -> None:
    model, samples = made[TaskKind.CLASSIFICATION], defects(6)
    tokens = model.tokenize([s.programs[0] for s in samples])
    with torch.no_grad():
        last, first_layer = model.network.hidden_states(tokens), model.network.hidden_states(tokens, 0)
    mean = np.stack([row[: int(m.sum())].mean(0) for row, m in zip(last.numpy(), tokens.mask, strict=True)])
    np.testing.assert_allclose(model.features(samples, pooling="mean"), mean, atol=2e-6)
    np.testing.assert_allclose(model.features(samples, pooling="first"), last[:, 0].numpy(), atol=2e-6)
    np.testing.assert_allclose(model.features(samples, layer=0, pooling="first"), first_layer[:, 0].numpy(), atol=2e-6)
    with torch.no_grad():
        assert model.network.head is not None
        scores = model.network.head(torch.from_numpy(model.features(samples))).numpy()
    np.testing.assert_allclose(scores, model.predict(samples), atol=2e-6)


@pytest.mark.parametrize(("join", "width"), [("difference", 128), ("concat", 64)])
def test_pair_features_are_what_the_head_sees(tmp_path: Path, join: str, width: int) -> None:
    settings = SMALL.model_copy(update={"pair_head": join})
    model, samples = create("tiny", CLONES, clones(20), settings, context(tmp_path)), clones(5)
    joined = model.features(samples)
    first, second = model.features(samples, 0, pooling="mean"), model.features(samples, 1, pooling="mean")
    parts = [first, second, np.abs(first - second), first * second][: width // 32]
    assert joined.shape == (5, width)
    np.testing.assert_allclose(joined, np.concatenate(parts, axis=1), atol=2e-6)


# ------------------------------------------------------------------------------------------------------------ gradients


@pytest.mark.parametrize("kind", [TaskKind.CLASSIFICATION, TaskKind.PAIRS])
def test_the_gradient_through_embeddings_is_the_finite_difference(
    made: dict[TaskKind, WhiteBox], kind: TaskKind
) -> None:
    model, sample = made[kind].copy(), TOYS[kind](1)[0]
    network = model.network.double()
    tokens = [pad(model.token_ids([p, "x"]), model.pad_id) for p in sample.programs]
    embeds = network.embedding(tokens[0].ids).detach().requires_grad_(True)

    def score(values: Tensor) -> Tensor:
        return network.logits(Tokens(tokens[0].ids, tokens[0].mask, values), *tokens[1:])[0, 1]

    torch.testing.assert_close(score(embeds), network.logits(*tokens)[0, 1], atol=1e-10, rtol=0)
    (gradient,) = torch.autograd.grad(score(embeds), embeds)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        direction = torch.randn(embeds.shape, generator=generator, dtype=torch.float64)
        step = 1e-5
        with torch.no_grad():
            difference = (score(embeds + step * direction) - score(embeds - step * direction)) / (2 * step)
        torch.testing.assert_close((gradient * direction).sum(), difference, atol=1e-8, rtol=1e-5)
    assert gradient[0].abs().sum() > 0
    assert gradient[1].abs().sum() == 0


# -------------------------------------------------------------------------------------------------------------- windows


def test_what_the_window_shows_in_bytes(made: dict[TaskKind, WhiteBox]) -> None:
    model = made[TaskKind.CLASSIFICATION]
    text = "é = '日本語'\n" + "alpha = beta + 1\n" * 40
    data = text.encode()
    kept = model.token_ids([text])[0][1:-1]
    limit = len(decode(model, kept).encode())
    assert len(kept) == model.window - 2
    assert limit < len(data)
    assert model.visible(text, 0, limit)
    assert model.visible(text, limit - 1, limit)
    assert not model.visible(text, limit - 1, limit + 1)
    assert not model.visible(text, limit, limit + 1)
    assert not model.visible(text, len(data) - 2, len(data))
    assert model.visible("x = 1\n", 0, 6)
    assert model.visible("", 0, 0)


def test_a_character_that_the_window_splits_is_not_visible(tmp_path: Path) -> None:
    model = create("tiny", DEFECTS, defects(20), SMALL.model_copy(update={"window": 4}), context(tmp_path))
    assert len(model.token_ids(["語"], 9)[0]) == 2 + 3
    assert not model.visible("語", 0, 3)
    assert model.visible("ab", 0, 2)


def test_encodings_carry_offsets_and_are_cut_to_the_window(made: dict[TaskKind, WhiteBox]) -> None:
    model = made[TaskKind.CLASSIFICATION]
    short, long = model.encodings(["alpha = 1\n", "alpha = 1\n" * 99])
    assert short.ids == model.token_ids(["alpha = 1\n"])[0]
    assert "".join("alpha = 1\n"[a:b] for a, b in short.offsets[1:-1]) == "alpha = 1\n"
    assert len(long.ids) == model.window
    assert long.ids[-1] == model.tokenizer.eos_token_id


def test_the_tokenizer_loses_nothing_and_is_the_same_for_the_same_texts(tmp_path: Path) -> None:
    one, two = (create("tiny", DEFECTS, defects(60), SMALL, context(tmp_path, seed)) for seed in (0, 1))
    assert one.tokenizer.backend_tokenizer.to_str() == two.tokenizer.backend_tokenizer.to_str()
    for text in ODD:
        ids = one.token_ids([text], 10_000)[0]
        assert ids[0] == one.tokenizer.bos_token_id
        assert decode(one, ids[1:-1]) == text


# ---------------------------------------------------------------------------------------------------- weights and files


def test_weights_depend_on_the_model_seed_alone(tmp_path: Path) -> None:
    prints = []
    for disturbance, seed in ((1, 0), (2, 0), (1, 5)):
        torch.manual_seed(disturbance)
        before = torch.get_rng_state()
        prints.append(create("tiny", DEFECTS, defects(20), SMALL, context(tmp_path, seed)).fingerprint())
        assert torch.equal(before, torch.get_rng_state())
    assert prints[0] == prints[1] != prints[2]


def test_outputs_are_those_of_evaluation_whatever_mode_a_module_was_left_in(made: dict[TaskKind, WhiteBox]) -> None:
    model, samples = made[TaskKind.CLASSIFICATION], defects(8)
    assert model.network.head is not None
    model.network.head.dropout.p = 0.5
    expected = model.predict(samples)
    model.network.head.dropout.train()
    assert np.array_equal(model.predict(samples), expected)
    model.network.train()
    assert np.array_equal(model.predict(samples), expected)
    assert all(module.training for module in model.network.modules())


def test_a_copy_is_independent(made: dict[TaskKind, WhiteBox]) -> None:
    model = made[TaskKind.CLASSIFICATION]
    before, twin = model.fingerprint(), model.copy()
    assert twin.fingerprint() == before
    with torch.no_grad():
        twin.network.embedding.weight[7] += 1
    assert model.fingerprint() == before != twin.fingerprint()


@pytest.mark.parametrize("kind", list(TaskKind))
def test_a_saved_model_comes_back_bit_for_bit(made: dict[TaskKind, WhiteBox], kind: TaskKind, tmp_path: Path) -> None:
    model, samples = made[kind], TOYS[kind](8, seed=2)
    model.save(tmp_path / "kept")
    before = torch.get_rng_state()
    back = load(tmp_path / "kept", model.info, CPU, Cost())
    assert torch.equal(before, torch.get_rng_state())
    assert sorted(p.name for p in (tmp_path / "kept").iterdir()) == [
        "model.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    assert back.fingerprint() == model.fingerprint()
    assert (back.settings, back.name) == (model.settings, model.name)
    np.testing.assert_array_equal(outputs(back, samples), outputs(model, samples))


def test_a_damaged_folder_says_what_is_wrong(made: dict[TaskKind, WhiteBox], tmp_path: Path) -> None:
    model, folder = made[TaskKind.CLASSIFICATION], tmp_path / "kept"

    def fails(match: str) -> None:
        with pytest.raises(ModelError, match=match):
            load(folder, DEFECTS, CPU, Cost())
        model.save(folder)

    fails("holds no model.json")
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-1000])
    fails("model.safetensors cannot be read")
    (folder / "model.safetensors").write_bytes(b"")
    fails("model.safetensors cannot be read")
    (folder / "model.safetensors").unlink()
    fails("holds no model.safetensors")
    (folder / "model.json").write_text("{", encoding="utf-8")
    fails("is not JSON")
    (folder / "model.json").write_text('{"format": 1, "kind": "classification", "classes": 2}', encoding="utf-8")
    fails("not complete")
    (folder / "tokenizer.json").write_text("[]", encoding="utf-8")
    fails("tokenizer.json cannot be read")
    with pytest.raises(ModelError, match="holds a model for classification"):
        load(folder, CLONES, CPU, Cost())


def test_weights_of_another_shape_are_refused(made: dict[TaskKind, WhiteBox], tmp_path: Path) -> None:
    made[TaskKind.CLASSIFICATION].save(tmp_path / "one")
    wider = create("tiny", DEFECTS, defects(20), SMALL.model_copy(update={"hidden": 64}), context(tmp_path))
    wider.save(tmp_path / "two")
    (tmp_path / "two" / "model.safetensors").replace(tmp_path / "one" / "model.safetensors")
    with pytest.raises(ModelError, match="size mismatch"):
        load(tmp_path / "one", DEFECTS, CPU, Cost())


def test_settings_refuse_what_they_do_not_know() -> None:
    with pytest.raises(ValueError, match="wndow"):
        ModelSettings.model_validate({"wndow": 3})


def test_labels_are_not_read_at_prediction(made: dict[TaskKind, WhiteBox]) -> None:
    model = made[TaskKind.CLASSIFICATION]
    hidden = [replace(s, label=None) for s in defects(4)]
    np.testing.assert_array_equal(model.predict(hidden), model.predict(defects(4)))
    assert SEARCH.labels == ()
