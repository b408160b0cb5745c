"""An n-gram language model over token strings: interpolated Kneser-Ney, scored in bulk.

Source: Kneser and Ney 1995; the interpolated form with one absolute discount per order as in Chen and Goodman 1999,
"An empirical study of smoothing techniques for language modeling", section 4.1.6. With ``c`` the counts of one order (raw
at the highest order; below it, the number of distinct left neighbours), ``h`` a context and ``h'`` the context without its
oldest word::

    P(w | h) = max(c(h w) - D, 0) / c(h .) + D * |{w: c(h w) > 0}| / c(h .) * P(w | h')

and ``P(w | h) = P(w | h')`` where ``h`` was never seen. Below the unigrams stands the uniform distribution over the
vocabulary, so that an unknown word is never impossible. ``D = n1 / (n1 + 2 n2)`` of each order (Ney, Essen and Kneser 1994).

A sentence is padded with ``order - 1`` begin marks and one end mark; the end mark is predicted, the begin mark never is.

The n-grams of each order are the nodes of a trie that is entered with the newest word and grows towards older ones. A
node is the key ``parent * |V| + word`` in a sorted array: a lookup of many n-grams is one ``searchsorted`` per order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

BEGIN, END, UNKNOWN = 0, 1, 2
"""Word numbers of the begin mark, the end mark and the class of all unknown words."""
RESERVED = 3
DEGENERATE_DISCOUNT = 0.75
"""Where the corpus has no n-gram seen once, or none seen twice, the estimate of the discount is 0 or 1: neither smooths."""


@dataclass(frozen=True)
class _Trie:
    """Seen n-grams by order: ``keys[k]`` (sorted) holds those of length k + 1; a node's number is its position."""

    keys: tuple[Ints, ...]
    words: int

    def find(self, level: int, parents: Ints, words: Ints) -> Ints:
        """Node numbers of ``parents`` extended by ``words`` at a level; -1 where never seen."""
        keys = self.keys[level]
        if not len(keys):
            return np.full(len(words), -1, dtype=np.int64)
        wanted = parents * self.words + words
        position = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        return np.where((parents >= 0) & (keys[position] == wanted), position, -1)


def _grow(columns: Sequence[Ints], words: int) -> tuple[_Trie, list[Ints]]:
    """The trie of rows (newest word first), and each row's node at each level."""
    keys, nodes = [], []
    parents = np.zeros(len(columns[0]) if columns else 0, dtype=np.int64)
    for column in columns:
        unique, parents = np.unique(parents * words + column, return_inverse=True)
        keys.append(unique)
        nodes.append(parents)
    return _Trie(tuple(keys), words), nodes


@dataclass(frozen=True)
class _Order:
    """Counts of one order: per n-gram, and per context (total and number of distinct words)."""

    counts: Floats
    totals: Floats
    types: Floats
    discount: float


def _discount(counts: Floats) -> float:
    once, twice = int(np.sum(counts == 1)), int(np.sum(counts == 2))
    return once / (once + 2 * twice) if once and twice else DEGENERATE_DISCOUNT


@dataclass(frozen=True)
class _Followers:
    """What follows the contexts of one order: their words side by side, context by context.

    Attributes:
        words: the words that were seen, shape (n,).
        running: running sum of their discounted counts, a zero first; shape (n + 1,).
        starts: where each context's words begin, and the end; shape (contexts + 1,).
    """

    words: Ints
    running: Floats
    starts: Ints


@dataclass(frozen=True)
class NgramModel:
    """A fitted model; immutable. Made by :meth:`fit`.

    Attributes:
        order: length of the longest n-gram; a word is predicted from ``order - 1`` words before it.
        vocabulary: number of each known word (from :data:`RESERVED` on).
    """

    order: int
    vocabulary: Mapping[str, int]
    _grams: _Trie
    _contexts: _Trie
    _orders: tuple[_Order, ...]

    @classmethod
    def fit(cls, sentences: Iterable[Sequence[str]], order: int = 4, min_count: int = 1) -> NgramModel:
        """Count the n-grams of sentences. Words seen less than ``min_count`` times are unknown words, also here.

        No sentence at all gives the uniform distribution over the end mark and the unknown word.

        Raises:
            ValueError: ``order`` is below 1.
        """
        if order < 1:
            raise ValueError(f"an n-gram model has an order of at least 1, not {order}")
        corpus = [list(sentence) for sentence in sentences]
        seen = Counter(word for sentence in corpus for word in sentence)
        kept = sorted(word for word, count in seen.items() if count >= min_count)
        vocabulary = {word: number for number, word in enumerate(kept, start=RESERVED)}
        rows = [_windows(_padded(_encode(vocabulary, s), order), order) for s in corpus]
        windows = np.concatenate(rows) if rows else np.zeros((0, order), dtype=np.int64)
        newest_first = [np.ascontiguousarray(windows[:, order - 1 - k]) for k in range(order)]
        words = len(vocabulary) + RESERVED
        grams, gram_nodes = _grow(newest_first, words)
        contexts, context_nodes = _grow(newest_first[1:], words)
        orders = []
        for k in range(order):
            size = len(grams.keys[k])
            if k == order - 1:
                counts = np.bincount(gram_nodes[k], minlength=size).astype(np.float64)
            else:  # distinct left neighbours = children in the trie
                counts = np.bincount(grams.keys[k + 1] // words, minlength=size).astype(np.float64)
            # All unigrams share the one empty context.
            of_row = context_nodes[k - 1] if k else np.zeros(len(windows), dtype=np.int64)
            of_gram = np.zeros(size, dtype=np.int64)
            of_gram[gram_nodes[k]] = of_row
            places = len(contexts.keys[k - 1]) if k else 1
            totals = np.bincount(of_gram, weights=counts, minlength=places).astype(np.float64)
            types = np.bincount(of_gram, minlength=places).astype(np.float64)
            orders.append(_Order(counts, totals, types, _discount(counts)))
        return cls(order, vocabulary, grams, contexts, tuple(orders))

    @property
    def words(self) -> int:
        """How many words can be predicted: the vocabulary, the end mark and the unknown word."""
        return len(self.vocabulary) + 2

    def encode(self, tokens: Sequence[str]) -> Ints:
        """Word numbers; :data:`UNKNOWN` for words outside the vocabulary."""
        return _encode(self.vocabulary, tokens)

    def probabilities(self, windows: Ints) -> Floats:
        """P(last word | words before it) for each row.

        Args:
            windows: word numbers, shape (m, order), oldest first; the last column never holds :data:`BEGIN`.

        Returns:
            float64 of shape (m,), each in (0, 1].
        """
        probability = np.full(len(windows), 1.0 / self.words)
        gram = np.zeros(len(windows), dtype=np.int64)
        context = np.zeros(len(windows), dtype=np.int64)
        for k, counts in enumerate(self._orders):
            column = windows[:, self.order - 1 - k]
            gram = self._grams.find(k, gram, column)
            if k:
                context = self._contexts.find(k - 1, context, column)
            total = np.where(context >= 0, counts.totals[context], 0.0)
            seen = total > 0
            if not seen.any():
                break
            count = np.where(gram >= 0, counts.counts[gram], 0.0)
            held_back = counts.discount * counts.types[context]
            mixed = np.maximum(count - counts.discount, 0.0) + held_back * probability
            probability = np.where(seen, mixed / np.where(seen, total, 1.0), probability)
        return probability

    def draw(self, context: Sequence[int], rng: np.random.Generator) -> int:
        """The number of a next word, drawn from :meth:`probabilities`; it may be :data:`END` or :data:`UNKNOWN`.

        The interpolated form is a walk: at each order, from the longest context down, either one of the words seen there
        (by its discounted count) or on to the shorter context (by what was held back).

        Args:
            context: the words before, at least ``order - 1`` of them, oldest first.
            rng: draws once an order.
        """
        nodes, node = [0], np.zeros(1, dtype=np.int64)
        for level in range(self.order - 1):
            node = self._contexts.find(level, node, np.array([context[-1 - level]]))
            nodes.append(int(node[0]))
        for counts, followers, at in reversed(list(zip(self._orders, self._followers, nodes, strict=True))):
            total = counts.totals[at] if at >= 0 and len(counts.totals) else 0.0
            if total <= 0:
                continue
            first, last = int(followers.starts[at]), int(followers.starts[at + 1])
            point = followers.running[first] + rng.random() * total
            if point < followers.running[last]:
                place = int(np.searchsorted(followers.running, point, side="right")) - 1
                return int(followers.words[min(max(place, first), last - 1)])
        return int(rng.integers(self.words)) + END

    @cached_property
    def _followers(self) -> tuple[_Followers, ...]:
        """One for each order; what :meth:`draw` reads."""
        found = []
        for k, counts in enumerate(self._orders):
            node = np.arange(len(self._grams.keys[k]))
            older: list[Ints] = []
            for level in range(k, 0, -1):
                key = self._grams.keys[level][node]
                older.append(key % self._grams.words)
                node = key // self._grams.words
            newest = self._grams.keys[0][node]
            context = np.zeros(len(newest), dtype=np.int64)
            for level, column in enumerate(reversed(older)):
                context = self._contexts.find(level, context, column)
            by_context = np.argsort(context, kind="stable")
            kept = np.maximum(counts.counts - counts.discount, 0.0)[by_context]
            starts = np.searchsorted(context[by_context], np.arange(len(counts.totals) + 1))
            running = np.concatenate([[0.0], np.cumsum(kept)])
            found.append(_Followers(newest[by_context], running, starts.astype(np.int64)))
        return tuple(found)

    def log_probabilities(self, tokens: Sequence[str]) -> Floats:
        """Natural log-probability of every word of a sentence and of its end; shape (n + 1,)."""
        return self.log_probabilities_of([tokens])[0]

    def log_probabilities_of(self, sentences: Sequence[Sequence[str]]) -> list[Floats]:
        """:meth:`log_probabilities` of each of some sentences, in one pass over all of them."""
        if not sentences:
            return []
        windows = [_windows(_padded(self.encode(tokens), self.order), self.order) for tokens in sentences]
        terms = np.asarray(np.log(self.probabilities(np.concatenate(windows))), dtype=np.float64)
        return np.split(terms, np.cumsum([len(rows) for rows in windows])[:-1])

    def perplexity(self, tokens: Sequence[str]) -> float:
        """exp of the mean negative log-probability over the n words and the end mark."""
        return float(np.exp(-self.log_probabilities(tokens).mean()))

    def log_probability_without_each(self, tokens: Sequence[str]) -> Floats:
        """Log-probability of the whole sentence (end mark included) with token i deleted, for every i; shape (n,)."""
        return self.deletions([tokens])[1]

    def deletions(
        self, sentences: Sequence[Sequence[str]], widths: Sequence[Sequence[int]] | None = None
    ) -> tuple[Floats, Floats]:
        """Log-probabilities of whole sentences (end marks included): as they are, and with each of their parts deleted.

        Deleting a part changes only the ``order - 1`` predictions after it, so all n deletions of a sentence together cost at
        most ``order`` times one pass, where scoring each shortened sentence anew costs n passes.

        Args:
            sentences: each a sequence of tokens.
            widths: how many tokens each part of each sentence has, at least 1; together they are the sentence. A part is a
                token by itself without them.

        Returns:
            (shape (len(sentences),), shape (all parts of all sentences,) in their order).
        """
        order = self.order
        lengths = np.array([len(tokens) for tokens in sentences], dtype=np.int64)
        if not len(lengths):
            return np.zeros(0), np.zeros(0)
        padded = np.concatenate([_padded(self.encode(tokens), order) for tokens in sentences])
        # Each sentence is predicted in lengths + 1 terms; token j of the sentence that begins at s stands at s + order - 1 + j.
        starts = np.cumsum(lengths + order) - (lengths + order)
        first_terms = np.cumsum(lengths + 1) - (lengths + 1)
        term_of = np.repeat(np.arange(len(lengths)), lengths + 1)
        ends = starts[term_of] + np.arange(len(term_of)) - first_terms[term_of] + order - 1
        terms = np.log(self.probabilities(padded[ends[:, None] + np.arange(1 - order, 1)]))
        totals = np.add.reduceat(terms, first_terms)
        running = np.concatenate([[0.0], np.cumsum(terms)])
        parts = lengths if widths is None else np.array([len(row) for row in widths], dtype=np.int64)
        width = np.ones(int(lengths.sum()), dtype=np.int64) if widths is None else _joined(widths)
        of = np.repeat(np.arange(len(lengths)), parts)
        index = np.cumsum(width) - width - (np.cumsum(lengths) - lengths)[of]
        # Deletion drops the part's own terms and replaces those up to `last` (the end mark's is number `lengths`).
        last = np.minimum(index + width + order - 2, lengths[of])
        without = totals[of] - (running[first_terms[of] + last + 1] - running[first_terms[of] + index])
        for step in range(1, order):
            rows = np.flatnonzero(index + width + step - 1 <= lengths[of])
            last_deleted = starts[of[rows]] + index[rows] + width[rows] + order - 2
            # The window that predicts the token `step` after the deleted part reaches further back past it.
            back = np.arange(1 - order, 1)
            place = (last_deleted + step)[:, None] + np.where(back + step <= 0, back - width[rows, None], back)
            without[rows] += np.log(self.probabilities(padded[place]))
        return totals, np.asarray(without, dtype=np.float64)

    def perplexity_without_each(self, tokens: Sequence[str]) -> Floats:
        """Perplexity of the sentence with token i deleted, for every i (over its n - 1 words and the end mark); shape (n,)."""
        total = self.log_probability_without_each(tokens)
        return np.asarray(np.exp(-total / max(len(tokens), 1)), dtype=np.float64)


def _encode(vocabulary: Mapping[str, int], tokens: Sequence[str]) -> Ints:
    return np.array([vocabulary.get(token, UNKNOWN) for token in tokens], dtype=np.int64)


def _joined(rows: Sequence[Sequence[int]]) -> Ints:
    return np.array([value for row in rows for value in row], dtype=np.int64)


def _padded(words: Ints, order: int) -> Ints:
    return np.concatenate([np.full(order - 1, BEGIN, dtype=np.int64), words, np.array([END], dtype=np.int64)])


def _windows(padded: Ints, order: int) -> Ints:
    """Every run of ``order`` words, shape (n + 1, order): one for each predicted word."""
    return np.lib.stride_tricks.sliding_window_view(padded, order).astype(np.int64)
