"""Words drawn from an n-gram model follow its probabilities."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from bench.ngram import BEGIN, END, NgramModel

CORPUS = [list("abcab"), list("abd"), list("bbca"), list("aab"), list("cabe")]
DRAWS = 20_000


@pytest.mark.parametrize("order", [1, 2, 4])
@pytest.mark.parametrize("context", ["ab", "zzzz", "", "bca"])
def test_draws_follow_the_probabilities(order: int, context: str) -> None:
    model = NgramModel.fit(CORPUS, order)
    before = [BEGIN] * order + model.encode(list(context)).tolist()
    following = np.arange(END, model.words + END)
    windows = np.array([[*before[len(before) - order + 1 :], word] for word in following])
    expected = model.probabilities(windows)
    rng = np.random.default_rng(5)
    drawn = Counter(model.draw(before, rng) for _ in range(DRAWS))
    assert set(drawn) <= set(following.tolist())
    for word, share in zip(following.tolist(), expected, strict=True):
        assert abs(drawn[word] / DRAWS - share) < 5 * np.sqrt(share * (1 - share) / DRAWS) + 1e-4


def test_a_model_of_nothing_draws_the_end_and_unknown_words_alike() -> None:
    model = NgramModel.fit([], order=3)
    rng = np.random.default_rng(0)
    drawn = Counter(model.draw([BEGIN, BEGIN], rng) for _ in range(2000))
    assert set(drawn) == {1, 2}
    assert abs(drawn[1] - 1000) < 150


def test_the_same_generator_gives_the_same_sentence() -> None:
    model = NgramModel.fit(CORPUS, 3)
    first, second = ([model.draw([BEGIN, BEGIN], rng) for _ in range(20)] for rng in map(np.random.default_rng, (4, 4)))
    assert first == second
