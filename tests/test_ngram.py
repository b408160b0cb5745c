"""The n-gram model equals a direct, slow reading of its definition, and is a probability distribution."""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict

import numpy as np
import pytest

from bench.ngram import BEGIN, DEGENERATE_DISCOUNT, END, RESERVED, UNKNOWN, NgramModel

TOY = [s.split() for s in ("a b a c", "a b a b", "b c", "c c c a", "a", "d a b c", "a b d")]


def random_corpus(seed: int, sentences: int = 40, words: int = 12) -> list[list[str]]:
    rng = np.random.default_rng(seed)
    weights = 1 / np.arange(1, words + 1)
    return [
        [f"w{i}" for i in rng.choice(words, size=rng.integers(0, 15), p=weights / weights.sum())]
        for _ in range(sentences)
    ]


class Naive:
    """Interpolated Kneser-Ney written from the formula with sets and dictionaries, one n-gram at a time."""

    def __init__(self, corpus: list[list[str]], order: int) -> None:
        self.order = order
        self.words = {w for s in corpus for w in s} | {"</s>", "<unk>"}
        self.counts: list[Counter[tuple[str, ...]]] = [Counter() for _ in range(order + 1)]
        left: list[dict[tuple[str, ...], set[str]]] = [defaultdict(set) for _ in range(order + 1)]
        for sentence in corpus:
            text = ["<s>"] * (order - 1) + sentence + ["</s>"]
            for end in range(order - 1, len(text)):
                gram = tuple(text[end - order + 1 : end + 1])
                self.counts[order][gram] += 1
                for k in range(1, order):
                    left[k][gram[-k:]].add(gram[-k - 1])
        for k in range(1, order):
            self.counts[k] = Counter({gram: len(words) for gram, words in left[k].items()})

    def discount(self, k: int) -> float:
        once = sum(c == 1 for c in self.counts[k].values())
        twice = sum(c == 2 for c in self.counts[k].values())
        return once / (once + 2 * twice) if once and twice else DEGENERATE_DISCOUNT

    def p(self, context: tuple[str, ...], word: str) -> float:
        k = len(context) + 1
        lower = 1 / len(self.words) if k == 1 else self.p(context[1:], word)
        followers = {g[-1]: c for g, c in self.counts[k].items() if g[:-1] == context}
        total = sum(followers.values())
        if not total:
            return lower
        d = self.discount(k)
        return max(followers.get(word, 0) - d, 0) / total + d * len(followers) / total * lower

    def log_probabilities(self, tokens: list[str]) -> list[float]:
        known = [t if t in self.words else "<unk>" for t in tokens]
        text = ["<s>"] * (self.order - 1) + known + ["</s>"]
        return [
            math.log(self.p(tuple(text[end - self.order + 1 : end]), text[end]))
            for end in range(self.order - 1, len(text))
        ]


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("tokens", ["a b c", "d d d d d", "a zzz b", "", "c"])
def test_probabilities_equal_the_definition(order: int, tokens: str) -> None:
    model, naive = NgramModel.fit(TOY, order), Naive(TOY, order)
    assert model.log_probabilities(tokens.split()) == pytest.approx(naive.log_probabilities(tokens.split()), abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_probabilities_equal_the_definition_on_random_corpora(seed: int) -> None:
    corpus = random_corpus(seed)
    model, naive = NgramModel.fit(corpus, 3), Naive(corpus, 3)
    for sentence in random_corpus(seed + 100, sentences=5, words=14):
        assert model.log_probabilities(sentence) == pytest.approx(naive.log_probabilities(sentence), abs=1e-12)


def test_a_bigram_probability_worked_by_hand() -> None:
    # Bigrams of "a b", "a c": <s>a 2, ab 1, ac 1, b</s> 1, c</s> 1: n1 = 4, n2 = 1, D2 = 4 / 6.
    # Continuation counts: a 1 (<s>), b 1, c 1, </s> 2 (b, c): n1 = 3, n2 = 1, D1 = 3 / 5; five words incl. <unk>.
    model = NgramModel.fit([["a", "b"], ["a", "c"]], order=2)
    base = 4 * 0.6 / 5 / 5
    p_b = (1 - 0.6) / 5 + base
    p_b_after_a = (1 - 2 / 3) / 2 + (2 / 3) * 2 / 2 * p_b
    assert model.log_probabilities(["a", "b"])[1] == pytest.approx(math.log(p_b_after_a), abs=1e-12)


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_probabilities_of_all_words_sum_to_one_after_any_context(order: int) -> None:
    model = NgramModel.fit(random_corpus(0), order)
    rng = np.random.default_rng(1)
    words = np.array([END, UNKNOWN, *range(RESERVED, RESERVED + len(model.vocabulary))])
    contexts = [np.full(order - 1, BEGIN), np.full(order - 1, UNKNOWN)]
    contexts += [rng.choice(words, size=order - 1) for _ in range(50)]
    for context in contexts:
        windows = np.column_stack([np.tile(context, (len(words), 1)), words])
        probabilities = model.probabilities(windows.astype(np.int64))
        assert probabilities.min() > 0
        assert probabilities.sum() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_many_sentences_in_one_pass_are_each_by_itself_to_the_bit(order: int) -> None:
    model, sentences = NgramModel.fit(random_corpus(3), order), [*random_corpus(4), [], ["never", "seen"]]
    for sentence, found in zip(sentences, model.log_probabilities_of(sentences), strict=True):
        assert found.tolist() == model.log_probabilities(sentence).tolist()
    assert model.log_probabilities_of([]) == []


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("length", [0, 1, 2, 3, 7, 40])
def test_deleting_each_token_equals_scoring_each_shortened_sentence(order: int, length: int) -> None:
    model = NgramModel.fit(random_corpus(2), order)
    tokens = [f"w{i}" for i in np.random.default_rng(length).integers(0, 14, size=length)]
    shortened = [tokens[:i] + tokens[i + 1 :] for i in range(length)]
    assert model.perplexity_without_each(tokens) == pytest.approx([model.perplexity(s) for s in shortened], rel=1e-9)
    assert model.log_probability_without_each(tokens) == pytest.approx(
        [model.log_probabilities(s).sum() for s in shortened], rel=1e-9
    )


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_deleting_each_part_equals_scoring_each_shortened_sentence(order: int) -> None:
    model, rng = NgramModel.fit(random_corpus(2), order), np.random.default_rng(order)
    widths = [rng.integers(1, 6, size=parts).tolist() for parts in (0, 1, 2, 5, 30, 0, 9)]
    sentences = [[f"w{i}" for i in rng.integers(0, 14, size=sum(row))] for row in widths]
    totals, without = model.deletions(sentences, widths)
    expected = []
    for tokens, row in zip(sentences, widths, strict=True):
        ends = np.cumsum([0, *row]).tolist()
        expected += [
            model.log_probabilities(tokens[:start] + tokens[end:]).sum() for start, end in itertools.pairwise(ends)
        ]
    assert without == pytest.approx(expected, rel=1e-9)
    assert totals == pytest.approx([model.log_probabilities(tokens).sum() for tokens in sentences], rel=1e-9)
    ones = [[1] * len(tokens) for tokens in sentences]
    for one, other in zip(model.deletions(sentences, ones), model.deletions(sentences), strict=True):
        assert np.array_equal(one, other)


def test_perplexity_of_a_uniform_model_is_the_number_of_words() -> None:
    model = NgramModel.fit([], order=3)
    assert model.words == 2
    assert model.perplexity(["anything", "at", "all"]) == pytest.approx(2)
    assert model.perplexity([]) == pytest.approx(2)


def test_rare_words_are_unknown_words() -> None:
    model = NgramModel.fit([["a", "a", "b"], ["a"]], order=2, min_count=2)
    assert set(model.vocabulary) == {"a"}
    assert model.log_probabilities(["b"]) == pytest.approx(model.log_probabilities(["never seen"]))


def test_order_of_sentences_does_not_matter() -> None:
    one, two = NgramModel.fit(TOY, 3), NgramModel.fit(TOY[::-1], 3)
    assert np.array_equal(one.log_probabilities(["a", "b", "q"]), two.log_probabilities(["a", "b", "q"]))


def test_what_was_seen_is_more_likely_than_what_was_not() -> None:
    model = NgramModel.fit([["x", "=", "1"]] * 20 + [["y", "=", "2"]] * 20, 3)
    assert model.perplexity(["x", "=", "1"]) < model.perplexity(["=", "x", "1"]) < model.perplexity(["cf", "cf", "cf"])


def test_an_order_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        NgramModel.fit(TOY, 0)
