"""Causal language models: what is loaded and what is refused, log-likelihoods by hand, and continuations."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.context import Context
from bench.errors import ModelError
from bench.models.causal import CausalModel, load_causal
from tests.causal_toys import BUILDERS, TEXTS, save


def context(folder: Path) -> Context:
    return Context(seeds={}, scratch=folder / "scratch")


@pytest.fixture(params=BUILDERS)
def model(request: pytest.FixtureRequest, tmp_path: Path) -> CausalModel:
    return load_causal(str(save(request.param, tmp_path / "model")), context(tmp_path))


def one_by_one(model: CausalModel, ids: list[int]) -> list[float]:
    """The log-probability of every token, each from a reading of its own of all that stands before it."""
    values = []
    for end in range(len(ids)):
        rows = torch.tensor([[model.start, *ids[:end]]])
        with torch.inference_mode():
            logits = model.network(input_ids=rows).logits[0, -1].double()
        values.append(float(logits.log_softmax(-1)[ids[end]]))
    return values


def test_a_batch_scores_as_reading_token_by_token(model: CausalModel) -> None:
    rows = model.token_ids(TEXTS)
    for row, values in zip(rows, model.token_log_probabilities(rows), strict=True):
        np.testing.assert_allclose(values, one_by_one(model, row), atol=2e-5)
    assert len({len(row) for row in rows}) > 2  # the batch was padded


def test_the_probabilities_of_all_texts_of_one_length_sum_to_one(model: CausalModel) -> None:
    words = range(len(model.tokenizer))
    scored = model.token_log_probabilities([[word] for word in words])
    assert sum(float(np.exp(values.sum())) for values in scored) == pytest.approx(1.0, abs=1e-5)


def test_likelihood_and_perplexity_come_from_the_token_values(model: CausalModel) -> None:
    values = model.token_log_probabilities(model.token_ids(TEXTS))
    np.testing.assert_allclose(model.log_likelihoods(TEXTS), [v.sum() for v in values], rtol=1e-6)
    perplexities = model.perplexities(TEXTS)
    assert perplexities[2] == 1.0  # the empty text
    assert perplexities[0] == pytest.approx(float(np.exp(-values[0].mean())), rel=1e-6)


def test_batches_of_one_text_score_the_same(tmp_path: Path) -> None:
    folder = str(save("gpt2", tmp_path / "model"))
    wide, narrow = (load_causal(folder, context(tmp_path), batch_tokens=size) for size in (4096, 1))
    np.testing.assert_allclose(wide.log_likelihoods(TEXTS), narrow.log_likelihoods(TEXTS), atol=1e-3)


def test_a_text_beyond_the_window_is_scored_as_far_as_it_shows(tmp_path: Path) -> None:
    model = load_causal(str(save("gpt2", tmp_path / "model", positions=8)), context(tmp_path))
    (row,) = model.token_ids(["a b c d e f g h i j k"])
    assert len(row) > 7
    (values,) = model.token_log_probabilities([row])
    np.testing.assert_allclose(values, one_by_one(model, row[:7]), atol=2e-5)


def test_greedy_continuation_is_the_most_likely_token_step_by_step(model: CausalModel) -> None:
    prompt = "def f(a):"
    ids = [model.start, *model.token_ids([prompt])[0]]
    expected: list[int] = []
    while len(expected) < 6:
        with torch.inference_mode():
            token = int(model.network(input_ids=torch.tensor([ids + expected])).logits[0, -1].argmax())
        if token in model.ends:
            break
        expected.append(token)
    found = model.continuations(prompt, 2, 6)
    assert found == [model.tokenizer.decode(expected, skip_special_tokens=True)] * 2


def test_draws_follow_the_models_distribution(model: CausalModel) -> None:
    with torch.inference_mode():
        ids = torch.tensor([[model.start, *model.token_ids(["x"])[0]]])
        probabilities = model.network(input_ids=ids).logits[0, -1].double().softmax(-1).numpy()
    drawn = model.continuations("x", 2000, 1, np.random.default_rng(3))
    likely = int(probabilities.argmax())
    text = str(model.tokenizer.decode([likely], skip_special_tokens=True))
    spelled_alike = [
        i for i in range(len(probabilities)) if model.tokenizer.decode([i], skip_special_tokens=True) == text
    ]
    share = probabilities[spelled_alike].sum()
    assert abs(drawn.count(text) / 2000 - share) < 4 * np.sqrt(share * (1 - share) / 2000)


def test_a_small_nucleus_or_a_low_temperature_is_greedy(model: CausalModel) -> None:
    (greedy,) = model.continuations("x = ", 1, 5)
    assert set(model.continuations("x = ", 4, 5, np.random.default_rng(0), top_p=1e-6)) == {greedy}
    assert set(model.continuations("x = ", 4, 5, np.random.default_rng(0), temperature=1e-4)) == {greedy}


def test_the_generator_alone_decides_a_draw(model: CausalModel) -> None:
    torch.manual_seed(1)
    first = model.continuations("x = ", 5, 8, np.random.default_rng(7))
    torch.manual_seed(2)
    assert model.continuations("x = ", 5, 8, np.random.default_rng(7)) == first
    assert model.continuations("x = ", 5, 8, np.random.default_rng(8)) != first
    assert len(set(first)) > 1


def test_a_text_ends_before_the_stop_mark(model: CausalModel) -> None:
    whole = model.continuations("x", 30, 12, np.random.default_rng(0))
    letters = [letter for letter in "".join(whole) if letter.isascii() and letter.isalnum()]
    letter = max(set(letters), key=letters.count)
    stopped = model.continuations("x", 30, 12, np.random.default_rng(0), stop=letter)
    assert all(letter not in text for text in stopped)
    assert stopped == [text.split(letter)[0] for text in whole]


def test_a_long_prompt_is_read_from_its_end(tmp_path: Path) -> None:
    model = load_causal(str(save("gpt2", tmp_path / "model", positions=12)), context(tmp_path))
    tail = " ".join("abcdefghijkl")
    first, second = (model.continuations(head + tail, 3, 4, np.random.default_rng(0)) for head in ("", "x y z " * 9))
    assert first == second


def test_the_cost_is_counted(tmp_path: Path) -> None:
    lent = context(tmp_path)
    model = load_causal(str(save("gpt2", tmp_path / "model")), lent)
    (row,) = model.token_ids(["x = 1"])
    model.token_log_probabilities([row])
    assert lent.cost.forward_tokens == len(row) + 1
    model.continuations("x = 1", 3, 2)
    prompt, step = len(row) + 1, 3
    assert lent.cost.forward_tokens in (len(row) + 1 + prompt, len(row) + 1 + prompt + step)


def test_a_pickled_model_says_the_same(model: CausalModel) -> None:
    copied = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(copied.log_likelihoods(TEXTS), model.log_likelihoods(TEXTS))


def test_loading_leaves_the_global_generator_alone(tmp_path: Path) -> None:
    folder = str(save("llama", tmp_path / "model"))
    before = torch.get_rng_state()
    load_causal(folder, context(tmp_path))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("weights", "holds no model.safetensors"),
        ("configuration", "holds no config.json"),
        ("tokenizer", "holds no tokenizer.json"),
        ("garbage", "does not load"),
    ],
)
def test_a_damaged_folder_is_refused(damage: str, message: str, tmp_path: Path) -> None:
    folder = save("gpt2", tmp_path / "model")
    if damage == "garbage":
        (folder / "model.safetensors").write_bytes(b"no tensors")
    names = {"weights": "model.safetensors", "configuration": "config.json", "tokenizer": "tokenizer*.json"}
    for path in folder.glob(names.get(damage, "")) if damage in names else ():
        path.unlink()
    with pytest.raises(ModelError, match=message):
        load_causal(str(folder), context(tmp_path))


def test_what_is_no_causal_model_is_refused(tmp_path: Path) -> None:
    folder = save("roberta", tmp_path / "model")
    with pytest.raises(ModelError, match="'roberta' model, which is no causal language model"):
        load_causal(str(folder), context(tmp_path))


def test_a_hub_name_must_be_pinned(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="pin it: set 'revision'"):
        load_causal("nobody/nothing", context(tmp_path))
    with pytest.raises(ModelError, match="does not exist"):
        load_causal("./nothing", context(tmp_path))
