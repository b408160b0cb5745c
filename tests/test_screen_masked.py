"""Masked models: surprises and suggestions by hand, what the window shows, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.context import Context
from bench.errors import ModelError
from bench.models.masked import STRIDE, MaskedModel, load_masked
from tests.causal_toys import save

TEXT = "value = value + 'é'\nfor i in range(10):\n    total += i\n"


def load(folder: Path) -> MaskedModel:
    return load_masked(str(folder), Context(seeds={}, scratch=folder))


@pytest.fixture
def model(tmp_path: Path) -> MaskedModel:
    return load(save("roberta", tmp_path / "masked"))


def words(text: str) -> list[tuple[int, int]]:
    """Character spans of what stands between blanks."""
    spans, start = [], 0
    for word in text.split(" "):
        spans += [(start, start + len(word))] if word else []
        start += len(word) + 1
    return spans


def logits(model: MaskedModel, ids: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        return model.network(input_ids=torch.tensor([ids])).logits[0].double()


def test_a_surprise_is_the_mean_of_what_hidden_tokens_cost(model: MaskedModel) -> None:
    encoding = model.tokenizer.backend_tokenizer.encode(TEXT)
    spans = words(TEXT)
    held = [[p for p, (a, b) in enumerate(encoding.offsets) if a < end and b > start] for start, end in spans]
    expected = []
    for number, places in enumerate(held):
        ids = list(encoding.ids)
        for together in held[number % STRIDE :: STRIDE]:
            for place in together:
                ids[place] = model.mask
        scores = logits(model, ids).log_softmax(-1)
        expected.append(-float(np.mean([float(scores[place, encoding.ids[place]]) for place in places])))
    assert len(spans) > STRIDE
    assert model.surprises(TEXT, spans) == pytest.approx(expected, rel=1e-4)
    assert model.cost.forward_tokens >= STRIDE * len(encoding.ids)


def test_suggestions_are_the_likeliest_tokens_in_the_place_of_one_mask(model: MaskedModel) -> None:
    encoding = model.tokenizer.backend_tokenizer.encode(TEXT)
    span = words(TEXT)[2]
    places = [p for p, (a, b) in enumerate(encoding.offsets) if a < span[1] and b > span[0]]
    ids = [*encoding.ids[: places[0]], model.mask, *encoding.ids[places[-1] + 1 :]]
    best = logits(model, ids)[places[0]].topk(4).indices.tolist()
    spelled = [str(model.tokenizer.decode([token])).strip() for token in best]
    assert model.suggestions(TEXT, [span, span], 4) == [spelled, spelled]
    assert model.suggestions(TEXT, [], 4) == []


def test_what_the_window_does_not_show_is_neither_surprising_nor_replaced(tmp_path: Path) -> None:
    model = load(save("roberta", tmp_path, positions=24))
    assert model.window is not None
    assert model.window <= 24
    far = (len(TEXT * 5) - 3, len(TEXT * 5))
    near = (0, 5)
    assert model.surprises(TEXT * 5, [near, far])[1] == 0.0
    assert model.surprises(TEXT * 5, [near, far])[0] > 0.0
    assert model.suggestions(TEXT * 5, [near, far], 3)[1] == []


@pytest.mark.parametrize("text", ["", "\n", "x"])
def test_empty_texts_and_no_pieces(text: str, model: MaskedModel) -> None:
    assert model.surprises(text, []).shape == (0,)
    assert model.surprises(text, [(0, 0)]).tolist() == [0.0]


def test_what_cannot_serve_is_refused(tmp_path: Path) -> None:
    save("roberta", tmp_path / "masked")
    with pytest.raises(ModelError, match="does not exist"):
        load(tmp_path / "nothing")
    with pytest.raises(ModelError, match="no masked language model"):
        load(save("gpt2", tmp_path / "gpt2"))
    with pytest.raises(ModelError, match="pin it"):
        load_masked("some/model", Context(seeds={}, scratch=tmp_path))
    described = json.loads((tmp_path / "masked" / "config.json").read_text())
    (tmp_path / "masked" / "config.json").write_text(json.dumps({**described, "pad_token_id": None}))
    with pytest.raises(ModelError, match=r"set pad_token_id in its config\.json"):
        load(tmp_path / "masked")


def test_scores_that_are_no_numbers_are_a_clear_error(model: MaskedModel) -> None:
    with torch.no_grad():
        next(iter(model.network.parameters())).fill_(float("nan"))
    with pytest.raises(ModelError, match="not finite"):
        model.surprises(TEXT, words(TEXT))
