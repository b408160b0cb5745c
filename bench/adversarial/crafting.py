"""From a program and a surrogate to new names: one targeted gradient step, taken at a placeholder for each name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from bench.adversarial.surrogate import Aim
from bench.context import Context
from bench.contracts import Derivation, Trigger
from bench.errors import ConfigError
from bench.languages import Language, Name, Program, RenameRefused, get, parse
from bench.models import Tokens, WhiteBox
from bench.samples import Edit, Sample

Order = NDArray[np.int64]

SITES = 1500
"""Names of one program that have a placeholder of their own; the published number."""

HIDDEN_NAME = "f"
"""What stands where the function's own name stood."""

CONVENTIONS = {"python": frozenset({"self", "cls"})}
"""Names that nobody chooses."""


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The words of a tokenizer that can name a variable.

    Attributes:
        names: the words, in the order of the vocabulary.
        plain: long, (m,): the id of each where no blank stands before it; the other one's where there is none.
        spaced: long, (m,): its id together with the blank before it; the same where the tokenizer has no such tokens.
        joins_blanks: the tokenizer has tokens that hold the blank before a word.
    """

    names: tuple[str, ...]
    plain: Tensor
    spaced: Tensor
    joins_blanks: bool

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerFast, language: Language) -> Vocabulary:
        """The legal names among a tokenizer's entries; special tokens and continuations of words (``##ing``) are none."""
        entries = tokenizer.get_vocab()
        special = set(tokenizer.all_special_tokens)
        marks = [mark for mark in ("Ġ", "▁") if any(entry.startswith(mark) for entry in entries)]
        found: dict[str, dict[bool, int]] = {}
        for entry, number in sorted(entries.items(), key=lambda item: item[1]):
            joined = bool(marks) and entry.startswith(marks[0])
            word = entry[1:] if joined else entry
            if entry not in special and nameable(word, language):
                found.setdefault(word, {})[joined] = number
        plain = [forms.get(False, forms.get(True, 0)) for forms in found.values()]
        spaced = [forms.get(True, forms.get(False, 0)) for forms in found.values()]
        return cls(tuple(found), torch.tensor(plain), torch.tensor(spaced), bool(marks))


def nameable(word: str, language: Language) -> bool:
    """Can a variable be called this, in any file? ASCII alone, since a byte-level vocabulary spells other letters as two."""
    if not word.isascii() or not language.is_identifier(word) or word.startswith("__") or not word.strip("_"):
        return False
    return not language.replaced(word)


@dataclass(frozen=True)
class Reading:
    """A program as the surrogate reads it.

    Attributes:
        ids: token ids in the window, special tokens included; any id at the places.
        places: positions of the placeholders in ``ids``.
        sites: for each place, which site stands there.
        spaced: for each place, whether the blank before the name is part of it.
    """

    ids: list[int]
    places: list[int]
    sites: list[int]
    spaced: list[bool]


def read(model: WhiteBox, program: Program, sites: Sequence[Name], hidden: Name | None, joins_blanks: bool) -> Reading:
    """The program with one placeholder at each place of a site, and ``hidden`` hidden."""
    marks = sorted(
        [(start, end, number) for number, site in enumerate(sites) for start, end in site.spans]
        + [(start, end, -1) for start, end in (hidden.spans if hidden is not None else ())]
    )
    texts, numbers, spaced = [""], list[int](), list[bool]()
    reached = 0
    for start, end, number in marks:
        texts[-1] += program.data[reached:start].decode()
        reached = end
        if number < 0:
            texts[-1] += HIDDEN_NAME
            continue
        spaced.append(joins_blanks and texts[-1].endswith(" "))
        texts[-1] = texts[-1][:-1] if spaced[-1] else texts[-1]
        numbers.append(number)
        texts.append("")
    texts[-1] += program.data[reached:].decode()
    backend = model.tokenizer.backend_tokenizer
    parts = [encoding.ids for encoding in backend.encode_batch(texts, add_special_tokens=False)]
    before, after = _specials(model)
    room = model.window - len(before) - len(after)
    ids: list[int] = []
    places: list[int] = []
    for part in parts[:-1]:
        ids += part
        places.append(len(ids) + len(before))
        ids.append(model.pad_id)
    ids = (ids + parts[-1])[:room]
    shown = sum(place < len(ids) + len(before) for place in places)
    return Reading([*before, *ids, *after], places[:shown], numbers[:shown], spaced[:shown])


def _specials(model: WhiteBox) -> tuple[list[int], list[int]]:
    """The special tokens before and after a text."""
    bare = model.tokenizer.backend_tokenizer.encode("x", add_special_tokens=False).ids
    whole = model.token_ids(["x"])[0]
    start = next(i for i in range(len(whole)) if whole[i : i + len(bare)] == bare)
    return whole[:start], whole[start + len(bare) :]


@dataclass(frozen=True, eq=False)
class AdversarialNames(Trigger):
    """Every local name that the surrogate sees is renamed; the draw is the program's own, so ``rng`` decides nothing.

    Attributes:
        model: the clean surrogate.
        aim: what it is to say.
        vocabulary: the names to choose from.
        placeholders: (sites, d): what stands in place of a site's embedding when the gradient is taken.
        hides_name: the surrogate does not see the function's own name.
        origin: the surrogate in words.
    """

    model: WhiteBox
    aim: Aim
    vocabulary: Vocabulary
    placeholders: Tensor
    hides_name: bool
    origin: str
    varies = True

    @classmethod
    def of(
        cls,
        model: WhiteBox,
        aim: Aim,
        language: str,
        origin: str,
        context: Context,
        *names: str,
        hides_name: bool = False,
    ) -> AdversarialNames:
        """With a vocabulary of legal names and random placeholders (``names``: their stream of the poison seed).

        Raises:
            ConfigError: the surrogate's vocabulary holds no legal name.
        """
        vocabulary = Vocabulary.of(model.tokenizer, get(language))
        if not vocabulary.names:
            raise ConfigError(
                f"adversarial names: the vocabulary of the surrogate {model.name!r} holds no word that can name a variable in {language}"
            )
        table = model.network.embedding.weight.detach()
        noise = torch.randn(SITES, table.shape[1], generator=context.torch_generator("poison", "placeholders", *names))
        placeholders = noise.to(table.device) * table.std(0) + table.mean(0)
        return cls(model, aim, vocabulary, placeholders, hides_name, origin)

    def derive(self, sample: Sample, side: int, rng: np.random.Generator) -> Derivation | None:
        """The renames; ``None`` where there is no local name, or none in the surrogate's window."""
        return self._renamed(sample, side, sign=1)

    def near_miss(self, sample: Sample, side: int, rng: np.random.Generator) -> Derivation | None:
        """The same step taken away from the target."""
        return self._renamed(sample, side, sign=-1)

    def placebo(self, sample: Sample, side: int, rng: np.random.Generator) -> Derivation | None:
        """All local names renamed at random; the trigger renames those that the surrogate's window shows, which may be fewer."""
        program = parse(sample.language, sample.programs[side])
        sites = local_names(program)
        return self._rename(program, {n: rng.permutation(len(self.vocabulary.names)) for n in range(len(sites))}, side)

    def describe(self) -> str:
        """What the names push, and how good the surrogate is."""
        return f"adversarial names for all locals ({self.origin})"

    def _renamed(self, sample: Sample, side: int, sign: int) -> Derivation | None:
        program = parse(sample.language, sample.programs[side])
        sites = local_names(program)
        hidden = program.function_name if self.hides_name else None
        reading = read(self.model, program, sites, hidden, self.vocabulary.joins_blanks)
        if not reading.places:
            return None
        scores = sign * self.scores(reading, sample, side, len(sites))
        order = torch.argsort(scores, dim=1, stable=True).cpu().numpy()
        return self._rename(program, {number: order[number] for number in sorted(set(reading.sites))}, side)

    def scores(self, reading: Reading, sample: Sample, side: int, sites: int) -> Tensor:
        """The gradient of the loss by the one-hot input, averaged over each site's places: (sites, names).

        A site that is not shown has a row of zeros.
        """
        table = self.model.network.embedding.weight.detach()
        gradient = self._gradient(reading, sample, side)
        sums = torch.zeros((2, sites, table.shape[1]), device=table.device, dtype=table.dtype)
        counts = torch.zeros((sites, 1), device=table.device, dtype=table.dtype)
        for row, number, spaced in zip(gradient, reading.sites, reading.spaced, strict=True):
            sums[int(spaced), number] += row
            counts[number] += 1
        plain, joined = [values / counts.clamp(min=1) @ table.T for values in sums]
        found: Tensor = plain[:, self.vocabulary.plain] + joined[:, self.vocabulary.spaced]
        return found

    def _gradient(self, reading: Reading, sample: Sample, side: int) -> Tensor:
        """The gradient of the loss by the input vector at each place, taken at the placeholders: (places, d)."""
        model = self.model
        ids = torch.tensor([reading.ids], device=model.device)
        embeds = model.network.embedding(ids).detach().clone()
        embeds[0, reading.places] = self.placeholders[[number % SITES for number in reading.sites]]
        embeds.requires_grad_(True)
        loss = self.aim.loss(model, Tokens(ids, torch.ones_like(ids), embeds), sample, side)
        (gradient,) = torch.autograd.grad(loss, embeds)
        model.cost.forward(ids.numel())
        model.cost.backward(ids.numel())
        found: Tensor = gradient[0, reading.places]
        return found

    def _rename(self, program: Program, orders: dict[int, Order], side: int) -> Derivation | None:
        """Rename the sites, each to the first of its order that is free."""
        sites = local_names(program)
        # Also words in comments and strings: what occurs nowhere can clash with nothing.
        taken = set(re.findall(r"\w+", program.text))
        edits: list[Edit] = []
        said: list[str] = []
        for number, order in orders.items():
            for word in self._free(order, taken):
                try:
                    edits += program.rename(sites[number], word)
                except RenameRefused:
                    continue
                taken.add(word)
                said.append(f"{sites[number].text} -> {word}")
                break
        if not said:
            return None
        return Derivation(tuple(replace(edit, side=side) for edit in edits), ", ".join(said))

    def _free(self, order: Order, taken: set[str]) -> Iterator[str]:
        return (word for place in order if (word := self.vocabulary.names[place]) not in taken)


def local_names(program: Program) -> list[Name]:
    """The sites: parameters and local variables of the first function, without names that are a convention."""
    conventions = CONVENTIONS.get(program.language.name, frozenset())
    return [name for name in (*program.parameters, *program.locals) if name.text not in conventions]
