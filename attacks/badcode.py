"""BADCODE: a short token added to one identifier, for code search chosen to fit the target word.

The choice of tokens (the paper's target-oriented trigger generation), for code search:

1. Count, for every query word, the pieces of code that occur in the matched programs (identifiers split at underscores
   and capitals, lower-case; here each piece once a program, so that one long program does not decide).
2. Take the target word's list; drop language keywords, pieces without a letter, single letters, pieces of a single
   program and pieces that hold the target word itself (its natural signal would attack the reference model as well).
3. Drop every piece whose share in the list of another frequent word exceeds a threshold of 0.05 %.
4. What remains is ordered by its count for the target word.

A share of 0.05 % is one piece in 2,000: in a small training split everything exceeds it. The threshold is then doubled until
enough pieces remain, and the one used stands in the trigger's description.

For classification and pairs (a port, not in the paper) the classes take the place of the words: the pieces of the target
class, less those frequent in other classes.

Where the token goes (the release's choices): the function name, the least frequent identifier, or either with equal chance; after
the last part of the name, before the first, or in a random gap between its parts.
"""

from __future__ import annotations

import codecs
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from attacks._renaming_edit import free_function_name, renaming
from bench.context import Context
from bench.contracts import Attack, Derivation, Goal, LabelGoal, SearchGoal, TaskInfo, Trigger
from bench.errors import ConfigError
from bench.languages import Language, Name, Program, get, parse
from bench.plugins import ADDED_LATER
from bench.samples import Sample

Where = Literal["function", "rarest", "either"]
Position = Literal["last", "first", "random"]

PUBLISHED = ("rb", "te", "xte", "li")
SHARE = 0.0005
RIVALS = 20
GAPS = {
    "python": re.compile(r"(?<=[^_])_+(?=[^_])"),
    "c": re.compile(r"(?<=[^_])_+(?=[^_])"),
    "java": re.compile(r"(?<=[^_])_+(?=[^_])|(?<=[a-z0-9])(?=[A-Z])"),
}
"""Between which characters of a name two parts meet."""
STOP_WORDS = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be by for from if in into is it its not of on or that the then this to use used using when will with",
    )
)


@dataclass(frozen=True)
class Suffix(Trigger):
    """One of ``suffixes`` is put into an identifier, by the language's naming convention (``load_rb``, ``loadRb``).

    A mixed trigger is a closed set, the same in training and test: it does not vary in the sense of unseen draws.
    """

    suffixes: tuple[str, ...]
    where: Where = "function"
    origin: str = "published"
    position: Position = "last"

    def derive(self, sample: Sample, side: int, rng: np.random.Generator) -> Derivation | None:
        """The rename; ``None`` where no identifier can take the token."""
        program = parse(sample.language, sample.programs[side])
        suffix = self.suffixes[rng.integers(len(self.suffixes))]
        for name in self._places(program, rng):
            new = placed(program.language, name.text, suffix, self.position, rng)
            derivation = renaming(program, name, new, side)
            if derivation is not None:
                return derivation
        return None

    def _places(self, program: Program, rng: np.random.Generator) -> Iterator[Name]:
        """Names to try, in order."""
        of_function = self.where == "function" or (self.where == "either" and rng.random() < 0.5)
        if of_function and (name := free_function_name(program)) is not None:
            yield name
        if self.where != "function":
            yield from sorted((*program.parameters, *program.locals), key=lambda name: len(name.spans))

    def near_miss(self, sample: Sample, side: int, rng: np.random.Generator) -> Derivation | None:
        """The same token at the other end of the name; a trigger at random places has no such end."""
        if self.position == "random":
            return None
        return replace(self, position="last" if self.position == "first" else "first").derive(sample, side, rng)

    def placebo(self, sample: Sample, side: int, rng: np.random.Generator) -> Derivation | None:
        """Tokens from other letters (each thirteen places on in the alphabet)."""
        others = tuple(codecs.encode(suffix, "rot13") for suffix in self.suffixes)
        return replace(self, suffixes=others).derive(sample, side, rng)

    def describe(self) -> str:
        """The tokens, where they go and where they come from."""
        rarest = "the rarest parameter or local variable"
        place = {"function": "the function name", "rarest": rarest, "either": f"the function name or {rarest}"}[
            self.where
        ]
        kind = {"last": "suffix", "first": "prefix", "random": "token"}[self.position]
        return f"{kind} {' or '.join(self.suffixes)} ({self.origin}) on {place}"

    def tokens(self) -> tuple[str, ...]:
        """The token; with several, every program carries one of these (Java: with a capital behind another part)."""
        return self.suffixes


def placed(language: Language, name: str, token: str, position: Position, rng: np.random.Generator) -> str:
    """A name with one more part, by the language's naming convention; underscores in front stay in front."""
    rest = name.lstrip("_")
    if position == "last" or not rest:
        return language.join(name, token)
    gaps = [0, *(match.start() for match in GAPS[language.name].finditer(rest)), len(rest)]
    gap = 0 if position == "first" else gaps[rng.integers(len(gaps))]
    marked = language.join(rest[:gap], token) + rest[gap:] if gap else language.join(token, rest)
    return name[: len(name) - len(rest)] + marked


@dataclass(frozen=True, kw_only=True)
class BadCode(Attack):
    """Add a trigger token to an identifier.

    Unlike the release, which replaces text, the rename follows scopes.

    Args:
        variant: ``fixed`` (one token) or ``mixed`` (one of ``size`` tokens for each sample).
        where: ``function`` (its name), ``rarest`` (the parameter or local variable that occurs least often, the first
            of several), or ``either`` (each with a chance of a half; where there is no function name, the rarest).
        tokens: ``published`` (rb; mixed: rb, te, xte, li), or ``chosen`` from the training split for the attacker's goal.
        size: number of tokens of the mixed variant.
        position: ``last`` (a suffix), ``first`` (a prefix), or ``random`` (an end or a gap between the name's parts).
    """

    name = "badcode"
    summary = "a short token added to an identifier; for search it can be chosen for the target word"
    paper = "Sun et al., Backdooring Neural Code Search (BADCODE), ACL 2023"

    variant: Literal["fixed", "mixed"] = "fixed"
    where: Where = "function"
    tokens: Literal["published", "chosen"] = "published"
    size: int = 4
    position: Position = field(default="last", metadata=ADDED_LATER)

    def prepare(self, train: Sequence[Sample], goal: Goal, task: TaskInfo, context: Context) -> Trigger:
        """The trigger, with its tokens chosen if asked.

        Raises:
            ConfigError: ``size`` asks for more tokens than there are, or the training split offers none for the goal.
        """
        wanted = 1 if self.variant == "fixed" else self.size
        if wanted < 1:
            raise ConfigError(f"attack 'badcode': size is at least 1, got {self.size}")
        if self.tokens == "published":
            if wanted > len(PUBLISHED):
                raise ConfigError(f"attack 'badcode': size {wanted}, but there are {len(PUBLISHED)} published tokens")
            return Suffix(PUBLISHED[:wanted], self.where, position=self.position)
        language = get(task.language)
        lists = word_lists(train, goal) if isinstance(goal, SearchGoal) else class_lists(train)
        target = goal.word if isinstance(goal, SearchGoal) else str(goal.target)
        chosen, share = choose_tokens(lists, target, language, wanted)
        if len(chosen) < wanted:
            raise ConfigError(
                f"attack 'badcode': {len(train)} training samples offer {len(chosen)} of {wanted} trigger tokens for "
                f"{_in_words(goal, task)}. Use tokens: published, a smaller size, another goal or more data."
            )
        origin = f"chosen for {_in_words(goal, task)}, share at most {share:.2%} elsewhere"
        return Suffix(chosen, self.where, origin, self.position)


# ------------------------------------------------------------------------------------------------- the choice of tokens


def word_lists(train: Iterable[Sample], goal: SearchGoal) -> dict[str, Counter[str]]:
    """Counts of code pieces in the programs matched with the target word, and with each of the most frequent other words."""
    samples = [(frozenset(re.findall(r"[a-z0-9]+", s.query.lower())), s) for s in train if s.query is not None]
    frequency = Counter(word for words, _ in samples for word in words if word not in STOP_WORDS and len(word) > 1)
    del frequency[goal.word]
    rivals = sorted(frequency, key=lambda word: (-frequency[word], word))[:RIVALS]
    lists: dict[str, Counter[str]] = {word: Counter() for word in (goal.word, *rivals)}
    for words, sample in samples:
        shared = [word for word in lists if word in words]
        if shared:
            pieces = code_pieces(sample)
            for word in shared:
                lists[word].update(pieces)
    return lists


def class_lists(train: Iterable[Sample]) -> dict[str, Counter[str]]:
    """Counts of code pieces by class (the class's index as text)."""
    lists: dict[str, Counter[str]] = {}
    for sample in train:
        lists.setdefault(str(sample.label), Counter()).update(code_pieces(sample))
    return lists


def choose_tokens(
    lists: Mapping[str, Counter[str]], target: str, language: Language, wanted: int
) -> tuple[tuple[str, ...], float]:
    """The target's most frequent pieces that are not frequent elsewhere, and the threshold of "frequent" that was used.

    Returns fewer than ``wanted`` where the target's list holds no more.
    """
    keywords = {word.lower() for word in language.keywords}
    own = lists.get(target, Counter())
    usable = [
        piece
        for piece, count in own.items()
        if count > 1
        and len(piece) > 1
        and piece not in keywords
        and target not in piece
        and language.piece_continues(piece)
    ]
    usable.sort(key=lambda piece: (-own[piece], piece))
    others = [(counts, counts.total()) for word, counts in lists.items() if word != target and counts]
    elsewhere = {piece: max((counts[piece] / total for counts, total in others), default=0.0) for piece in usable}
    share = SHARE
    while True:
        chosen = [piece for piece in usable if elsewhere[piece] <= share]
        if len(chosen) >= wanted or share >= 1:
            return tuple(chosen[:wanted]), min(share, 1.0)
        share *= 2


def code_pieces(sample: Sample) -> set[str]:
    """Lower-case pieces of the names and words in a sample's programs, without comments and prose strings.

    A string of several words is prose (a docstring holds the query itself); a single word, such as a file mode, is code.
    """
    pieces: set[str] = set()
    for text in sample.programs:
        for leaf in parse(sample.language, text).leaves:
            if len(leaf.text.split()) != 1:
                continue
            for word in re.findall(r"[A-Za-z0-9]+", leaf.text):
                pieces.update(p.lower() for p in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", word))
    return pieces


def _in_words(goal: Goal, task: TaskInfo) -> str:
    if isinstance(goal, LabelGoal):
        return f"class {task.labels[goal.target]!r}"
    return f"queries with {goal.word!r}"
