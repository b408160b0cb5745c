"""Step 2: where in each sample the trigger is tried.

Source: EliBadCode (FSE 2025), phase (b) "sample-specific trigger position identification": every name of a sample is masked in
turn (all its occurrences), the model is asked again, and the masked variant decides the position. The release takes the highest
P(class 1) for defect detection and the lowest P(target) for clone detection; both are "the variant with the highest loss towards
the target" in the direction 1 -> 0, and that is the rule here, for every direction. The release reads the position as a *word* index and
uses it as a *token* index, and a sample without names makes it fail; here positions come from the tokenizer's offsets, and a
sample without names gets the place in front of its first token (the release's position 1). The trigger takes the place of one masked
occurrence of the chosen name: the first that stands behind a space, so that word-initial pieces are in their place there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding

from bench.errors import ConfigError
from bench.languages import parse
from bench.models.handles import WhiteBox
from bench.samples import Sample
from defenses.inversion.scoring import Row, Scorer, Site
from defenses.inversion.vocabulary import Style, opens_name, style_of


@dataclass(frozen=True, slots=True)
class Masking:
    """One name of one program, seen through the tokenizer.

    Attributes:
        name: its text; ``None`` for the program without a name (nothing masked).
        masked: token ids with each occurrence of the name replaced by one mask token.
        slot: the tokens ``[first, last)`` of ``masked`` whose place the trigger takes.
        plain: the same in the unmasked ids.
    """

    name: str | None
    masked: tuple[int, ...]
    slot: tuple[int, int]
    plain: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Scanned:
    """A sample, its token ids and its maskings, and what the model said of each.

    Attributes:
        ids: of the first program, special tokens included.
        other: of a pair's second program.
        closing: how many special tokens close ``ids``.
        maskings: at least one.
        losses: (1 + maskings, aims), float64: of the unmasked input first, towards each class in nats; code search has one
            aim, the cosine gap (1 - cosine) to the program's own query.
        label: the sample's own class; 0 for code search.
    """

    ids: tuple[int, ...]
    other: tuple[int, ...] | None
    closing: int
    maskings: tuple[Masking, ...]
    losses: NDArray[np.float64]
    label: int


Rule = Literal["rise", "own label", "first class"]
"""Which masking decides a sample's position: the one that raises the loss towards the aim most; the one with the highest loss of the
sample's own label (the paper's figure); the one with the highest P(class 1), whatever the direction (the release, defect detection)."""


def character_spans(text: str, spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Byte spans (UTF-8) as character spans."""
    if text.isascii():
        return list(spans)
    data = text.encode()
    return [(len(data[:start].decode()), len(data[:end].decode())) for start, end in spans]


def token_span(encoding: Encoding, start: int, end: int) -> tuple[int, int] | None:
    """The tokens ``[first, last)`` that lie inside characters ``[start, end)``; ``None`` where a part of the span is cut off.

    A leading space belongs to a token's offsets in some tokenizers and not in others, so a token counts when its last
    character lies inside. A token that reaches past the end (``_(``) is left out: what is inserted behind a name must not
    land behind the bracket.
    """
    inside = [
        i
        for i, ((_, stop), special) in enumerate(zip(encoding.offsets, encoding.special_tokens_mask, strict=True))
        if not special and start < stop <= end
    ]
    reach = max((stop for _, stop in encoding.offsets), default=0)
    if not inside or reach < end:
        return None
    return inside[0], inside[-1] + 1


def maskings_of(
    sample: Sample, encoding: Encoding, style: Style, mask: int, room: int, limit: int | None, *, functions: bool = True
) -> list[Masking]:
    """The maskings of a sample's first program: one for each renameable name (function, parameters, locals).

    Args:
        sample: whose first program is looked at.
        encoding: of that program, cut to the window.
        style: of the tokenizer.
        mask: id that stands for a masked name.
        room: last slot index that leaves the trigger its place in the window.
        limit: at most so many names, those with most visible occurrences first; ``None`` for all.
        functions: the function's name as well, or variables alone.
    """
    program = parse(sample.language, sample.programs[0])
    function = program.function_name if functions else None
    names = [n for n in (function, *program.parameters, *program.locals) if n is not None]
    found: list[tuple[int, Masking]] = []
    for name in names:
        spans = [token_span(encoding, *s) for s in sorted(character_spans(sample.programs[0], name.spans))]
        visible = [s for s in spans if s is not None]
        opened = [
            at for at, (first, _) in enumerate(visible) if opens_name(encoding.tokens[first], style) and first <= room
        ]
        if not opened:
            continue
        ids: list[int] = []
        position = 0
        for first, last in visible:
            ids += [*encoding.ids[position:first], mask]
            position = last
        ids += encoding.ids[position:]
        place = visible[opened[0]]
        slot = place[0] - sum(last - first - 1 for first, last in visible[: opened[0]])
        found.append((len(visible), Masking(name.text, tuple(ids), (slot, slot + 1), place)))
    found.sort(key=lambda item: -item[0])
    return [masking for _, masking in found[:limit]]


def scan(
    samples: Sequence[Sample],
    model: WhiteBox,
    scorer: Scorer,
    *,
    room_for: int,
    names: int | None,
    functions: bool = True,
) -> list[Scanned]:
    """Mask every name of every sample and ask the model. One pass serves all aims.

    Args:
        samples: labelled, or with queries (code search).
        model: for its tokenizer and window.
        scorer: asked for losses.
        room_for: tokens of the trigger, separator included.
        names: at most so many names a sample; ``None`` for all.
        functions: the function's name is one of them.

    Raises:
        ConfigError: the model's window has no room for the trigger.
    """
    tokenizer = model.tokenizer
    style = style_of(tokenizer.get_vocab())
    mask = next(
        t for t in (tokenizer.unk_token_id, tokenizer.mask_token_id, tokenizer.pad_token_id, 0) if t is not None
    )
    encodings = model.encodings([s.programs[0] for s in samples])
    others = model.encodings([s.programs[1] for s in samples]) if samples and len(samples[0].programs) > 1 else None
    scanned: list[Scanned] = []
    rows: list[Row] = []
    for number, (sample, encoding) in enumerate(zip(samples, encodings, strict=True)):
        opening, closing = _margins(encoding)
        room = model.window - closing - room_for
        if room < opening:
            raise ConfigError(
                f"a trigger of {room_for} tokens does not fit the model's window of {model.window}; "
                "make the trigger shorter or the window longer"
            )
        maskings = maskings_of(sample, encoding, style, mask, room, names, functions=functions)
        fallback = Masking(None, tuple(encoding.ids), (opening, opening), (opening, opening))
        other = tuple(others[number].ids) if others is not None else None
        own = tuple(maskings) or (fallback,)
        scanned.append(Scanned(tuple(encoding.ids), other, closing, own, np.empty((0, 0)), sample.label or 0))
        rows += [Row(scanned[-1].ids, other), *(Row(m.masked, other) for m in own)]
    owners = [sample for sample, each in zip(samples, scanned, strict=True) for _ in range(1 + len(each.maskings))]
    losses = scorer.every_loss(rows, owners)
    ends = np.cumsum([1 + len(each.maskings) for each in scanned])
    return [
        replace(each, losses=losses[end - 1 - len(each.maskings) : end])
        for each, end in zip(scanned, ends, strict=True)
    ]


def _margins(encoding: Encoding) -> tuple[int, int]:
    """How many special tokens open and close an encoding."""
    special = encoding.special_tokens_mask
    if all(special):  # an empty program: what opens it is the first token
        return min(1, len(special)), max(len(special) - 1, 0)
    return special.index(0), special[::-1].index(0)


def choose(scanned: Scanned, aim: int, rule: Rule = "rise") -> Masking:
    """The name in whose place the trigger is tried, for an aim (a class; 0 for code search). See :data:`Rule`."""
    losses = scanned.losses
    if rule == "rise":
        wanted = losses[1:, aim] - losses[0, aim]
    elif rule == "own label":
        wanted = losses[1:, scanned.label]
    else:
        wanted = -losses[1:, min(1, losses.shape[1] - 1)]
    return scanned.maskings[int(np.argmax(wanted))]


def sites_for(
    scanned: Sequence[Scanned], aim: int, *, length: int, window: int, masked: bool, rule: Rule = "rise"
) -> list[Site]:
    """Cut every sample at its position for one aim.

    Args:
        scanned: by :func:`scan`.
        aim: the class that the trigger shall bring about; 0 for code search.
        length: of the trigger in tokens, separator included.
        window: of the model.
        masked: keep the chosen name's other occurrences masked (the paper's inputs are the masked samples) or restored.
        rule: see :data:`Rule`.
    """
    sites = []
    for sample in scanned:
        chosen = choose(sample, aim, rule)
        ids, slot = (chosen.masked, chosen.slot) if masked else (sample.ids, chosen.plain)
        sites.append(cut(ids, slot, sample, length, window, chosen.name))
    return sites


def cut(
    ids: Sequence[int], slot: tuple[int, int], sample: Scanned, length: int, window: int, name: str | None = None
) -> Site:
    """A hole of ``length`` tokens in the place of ``ids[slot]``; what then exceeds the window is cut off before the closing tokens."""
    before, after = tuple(ids[: slot[0]]), tuple(ids[slot[1] :])
    excess = len(before) + length + len(after) - window
    if excess > 0:
        keep = len(after) - sample.closing
        after = (*after[: max(keep - excess, 0)], *after[keep:])
    return Site(before, after, sample.other, name)


def sites_as_released(
    samples: Sequence[Sample], scanned: Sequence[Scanned], aim: int, *, length: int, window: int
) -> list[Site]:
    """The release's positions: the chosen variable's *word* index, taken for a *token* index; 1 where it is beyond half the window.

    The trigger is inserted there, into the unmasked program. Pairs have the release's other rule, the lowest P(aim).
    """
    sites = []
    for sample, each in zip(samples, scanned, strict=True):
        chosen = choose(each, aim, "first class" if each.other is None else "rise").name
        words = [leaf.text for leaf in parse(sample.language, sample.programs[0]).leaves]
        index = words.index(chosen) if chosen in words else 0
        index = index if 0 < index <= window // 2 else 1
        sites.append(_inserted(each, index, length, window))
    return sites


def sites_at(scanned: Sequence[Scanned], index: int, *, length: int, window: int) -> list[Site]:
    """The trigger inserted at one token index of every program (the release scores its candidates at 10)."""
    return [_inserted(each, index, length, window) for each in scanned]


def _inserted(sample: Scanned, index: int, length: int, window: int) -> Site:
    index = max(1, min(index, len(sample.ids) - sample.closing, window - sample.closing - length))
    return cut(sample.ids, (index, index), sample, length, window)
