"""From clean splits, a trigger, a goal and a policy to a poisoned training set, triggered test inputs and the manifest.

The manifest is the truth sidecar: what was edited where, and what stood there before. Nothing of it can be read from the
samples in :attr:`Poisoned.train`. Validation data, and the clean budget of the defenses, are never touched.

How many samples are poisoned: a rate is a share of ``policy.of``, as the split was before poisoning; the product is rounded
to the nearest whole number, halves up (the rate is taken as the decimal number that was written: 0.05 of 430 is 21.5 and
selects 22). A sample that the trigger does not fit, or whose edit is refused, is replaced by another candidate.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Literal

from bench.context import Context
from bench.contracts import Derivation, Goal, LabelGoal, Policy, SearchGoal, TaskInfo, TaskKind, Trigger
from bench.errors import ConfigError, DataError, PluginError
from bench.languages import well_formed
from bench.samples import Edit, EditConflict, Sample, Splits, apply_edits

Part = Literal["train", "triggered", "reverse"]

REDRAWS = 20
"""How often a varying trigger is drawn again at test time to find a draw that training did not show."""

OPAQUE_ID = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class ManifestRow:
    """What was done to one program.

    Attributes:
        id: of the sample, in :attr:`Poisoned.train`, ``triggered`` or ``reverse``.
        part: which of the three.
        side: the program of the sample (0, or 1 for the second of a pair).
        edits: byte edits of the program before; ``removed[i]`` is the text that ``edits[i]`` took away.
        derivation: the draw in words.
        label: the sample's true class (a dirty-label poison carries another), or ``None`` for search.
        before_sha256: hex digest of the program before.
        after_sha256: hex digest of the program with the trigger.
        visible: whether a model's window still shows the trigger; ``None`` until a model is known.
        appended_from: id in the clean training split of the twin that stayed, or ``None`` where the sample was replaced.
    """

    id: str
    part: Part
    side: int
    edits: tuple[Edit, ...]
    removed: tuple[str, ...]
    derivation: str
    label: int | None
    before_sha256: str
    after_sha256: str
    visible: bool | None = None
    appended_from: str | None = None

    def spans(self) -> tuple[tuple[int, int], ...]:
        """Byte spans ``[start, end)`` of the replacements in the program with the trigger, in order."""
        spans = []
        shift = 0
        for edit in sorted(self.edits, key=_place):
            size = len(edit.replacement.encode())
            spans.append((edit.start + shift, edit.start + shift + size))
            shift += size - (edit.end - edit.start)
        return tuple(spans)

    def restore(self, text: str) -> str:
        """The program before, from the program with the trigger.

        Raises:
            DataError: ``text`` is not the program that this row describes.
        """
        if _sha256(text) != self.after_sha256:
            raise DataError(
                f"the text given is not side {self.side} of sample {self.id!r} ({self.part}) with its trigger"
            )
        old = [text for _, text in sorted(zip(self.edits, self.removed, strict=True), key=lambda pair: _place(pair[0]))]
        return apply_edits(text, [Edit(start, end, back) for (start, end), back in zip(self.spans(), old, strict=True)])

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary; :meth:`from_json` is its inverse."""
        return asdict(self)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> ManifestRow:
        """Rebuild a row from :meth:`to_json`."""
        return cls(**{**row, "edits": tuple(Edit(**edit) for edit in row["edits"]), "removed": tuple(row["removed"])})


@dataclass(frozen=True)
class Poisoned:
    """The outcome of :func:`poison`.

    Attributes:
        train: the training set, in an order and with ids that tell nothing about poisoning.
        poisoned: ids of the poisoned samples in ``train``.
        triggered: test samples with the trigger and their *true* label: those of the victim class. For search: every test
            sample to which the trigger applies, program edited, since which candidate is used depends on the model.
        reverse: triggered test samples of the target class, for reverse ASR; empty for search.
        manifest: one row for every edited program.
        requested: how many training samples the policy asks for; ``len(poisoned)`` were.
        eligible: test samples that the goal chooses (victim class, or queries with the target word).
        asked: test samples whose program was to carry the trigger: the eligible ones, for search all.
        applicable: how many of those asked carry it (``len(triggered)``).
        refused: edits of any part that were refused because the program would no longer be well-formed.
        description: the trigger in one line.
        tokens: literal pieces that every triggered program carries.
        unseen: triggered test samples whose draw no poisoned training sample shows; 0 for a trigger that does not vary.
    """

    train: tuple[Sample, ...]
    poisoned: frozenset[str] = frozenset()
    triggered: tuple[Sample, ...] = ()
    reverse: tuple[Sample, ...] = ()
    manifest: tuple[ManifestRow, ...] = ()
    requested: int = 0
    eligible: int = 0
    asked: int = 0
    applicable: int = 0
    refused: int = 0
    description: str = ""
    tokens: tuple[str, ...] = ()
    unseen: int = 0

    @property
    def coverage(self) -> float:
        """Share of the test programs asked that can carry the trigger; 0 where none was asked."""
        return self.applicable / self.asked if self.asked else 0.0

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary; :meth:`from_json` is its inverse."""
        return {
            "train": [s.to_json() for s in self.train],
            "poisoned": sorted(self.poisoned),
            "triggered": [s.to_json() for s in self.triggered],
            "reverse": [s.to_json() for s in self.reverse],
            "manifest": [row.to_json() for row in self.manifest],
            "requested": self.requested,
            "eligible": self.eligible,
            "asked": self.asked,
            "applicable": self.applicable,
            "refused": self.refused,
            "description": self.description,
            "tokens": list(self.tokens),
            "unseen": self.unseen,
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Poisoned:
        """Rebuild from :meth:`to_json`.

        Raises:
            KeyError, TypeError: a field is missing or unknown.
        """
        samples = {part: tuple(Sample.from_json(s) for s in row[part]) for part in ("train", "triggered", "reverse")}
        rebuilt = {
            "poisoned": frozenset(row["poisoned"]),
            "manifest": tuple(ManifestRow.from_json(r) for r in row["manifest"]),
            "tokens": tuple(row["tokens"]),
        }
        return cls(**{**row, **samples, **rebuilt})


def poison(
    splits: Splits, trigger: Trigger | None, goal: Goal, policy: Policy, info: TaskInfo, context: Context
) -> Poisoned:
    """Poison the training split and put the trigger into the test split.

    Draws come from the seed axis ``poison`` and from a sample's id alone, so that they depend neither on the order of the
    splits nor on other samples. Of ``policy.of == "victim"`` the base is the class that poison is drawn from: the victim
    class for dirty labels, the target class for clean labels, the queries with the target word for search.

    Args:
        splits: the task's data; unchanged.
        trigger: ``None`` (the null attack) only gives the training split in the order that every attack with this seed has.
        goal: whom to poison, and to what label.
        policy: how many, and how.
        info: the task.
        context: must have the seed axis ``poison``.

    Raises:
        ConfigError: the policy makes no sense, or selects nothing; the message states the numbers.
        DataError: two training samples have one id.
        PluginError: the trigger returns edits that overlap, leave the program or name another side.
    """
    _check_ids(splits.train)
    if trigger is None:
        return Poisoned(training_order(splits.train))
    _check(goal, policy, info)
    editor = _Editor(trigger, context)
    train = _poison_training(splits.train, editor, goal, policy, info, context)
    seen = frozenset(row.derivation for row in train.manifest) if trigger.varies else frozenset()
    sides = (0, 1) if policy.side == "both" and info.kind is TaskKind.PAIRS else (0,)

    eligible = [s for s in splits.test if goal.chooses(s)]
    asked = list(splits.test) if isinstance(goal, SearchGoal) else eligible
    triggered = editor.edit_all(asked, sides, "triggered", seen)
    opposite = [] if isinstance(goal, SearchGoal) else [s for s in splits.test if goal.chooses_reverse(s)]
    reverse = editor.edit_all(opposite, sides, "reverse", seen)
    return replace(
        train,
        triggered=tuple(e.sample for e in triggered),
        reverse=tuple(e.sample for e in reverse),
        manifest=train.manifest + tuple(row for e in (*triggered, *reverse) for row in e.rows),
        eligible=len(eligible),
        asked=len(asked),
        applicable=len(triggered),
        refused=editor.refused,
        description=trigger.describe(),
        tokens=trigger.tokens(),
        unseen=sum(all(row.derivation not in seen for row in e.rows) for e in triggered) if trigger.varies else 0,
    )


# ------------------------------------------------------------------------------------------------------------- training


def _poison_training(
    train: Sequence[Sample], editor: _Editor, goal: Goal, policy: Policy, info: TaskInfo, context: Context
) -> Poisoned:
    """The training part of :func:`poison`: chosen samples replaced, or copies of them appended."""
    wanted, candidates = _wanted(train, goal, policy, info)
    turn = _keyed(context, "select")
    chosen: list[_Edited] = []
    for sample in context.progress(sorted(candidates, key=lambda s: turn(s.id)), "poisoning the training set"):
        if len(chosen) == wanted:
            break
        edited = editor.edit_first(sample, _training_sides(sample, policy, context), "train")
        if edited is not None:
            chosen.append(edited)
    if not chosen:
        raise ConfigError(
            f"the trigger ({editor.trigger.describe()}) fits none of {len(candidates)} candidates in the training split "
            f"({editor.refused} edits refused): nothing would be poisoned. Choose another attack for this task."
        )
    if len(chosen) < wanted:
        # All there are, less those that the trigger does not fit, is what a rate of 1 means; else it is worth a word.
        level = logging.INFO if wanted == len(candidates) else logging.WARNING
        context.log.log(level, "poisoned %d of %d requested samples: the trigger fits no more", len(chosen), wanted)
    if isinstance(goal, LabelGoal) and policy.labels == "dirty":
        chosen = [replace(e, sample=replace(e.sample, label=goal.target)) for e in chosen]
    result = list(train)
    if policy.mode == "append":
        result, chosen = _appended(result, chosen, context)
        result += [e.sample for e in chosen]
    else:
        by_id = {e.sample.id: e.sample for e in chosen}
        result = [by_id.get(s.id, s) for s in result]
    return Poisoned(
        train=training_order(result),
        poisoned=frozenset(e.sample.id for e in chosen),
        manifest=tuple(row for e in chosen for row in e.rows),
        requested=wanted,
    )


def _wanted(train: Sequence[Sample], goal: Goal, policy: Policy, info: TaskInfo) -> tuple[int, list[Sample]]:
    """How many samples to poison, and the candidates.

    Raises:
        ConfigError: there is no candidate, or the number is zero or more than there are.
    """
    clean = policy.labels == "clean" and isinstance(goal, LabelGoal)
    candidates = [s for s in train if (goal.chooses_reverse(s) if clean else goal.chooses(s))]
    if isinstance(goal, SearchGoal):
        what = f"training samples whose query holds the word {goal.word!r}"
    else:
        what = f"training samples of class {info.labels[goal.target if clean else goal.victim]!r}"
    if not candidates:
        raise ConfigError(
            f"there are no {what} among {len(train)}: nothing can be poisoned. Change the goal or the data."
        )
    if policy.rate is None:
        wanted, reason = policy.count or 0, f"a poison count of {policy.count}"
    else:
        base = len(train) if policy.of == "train" else len(candidates)
        share = Decimal(str(policy.rate)) * base
        wanted = int(share.quantize(Decimal(1), ROUND_HALF_UP))
        reason = f"a poison rate of {policy.rate} of {base} ({'training split' if policy.of == 'train' else what})"
        if wanted == 0:
            raise ConfigError(
                f"{reason} is {share:f} samples and selects nothing. Give a rate of at least {0.5 / base:.2g}, or a count."
            )
    if wanted > len(candidates):
        raise ConfigError(f"{reason} asks for {wanted} samples, but there are only {len(candidates)} {what}.")
    return wanted, candidates


def _training_sides(sample: Sample, policy: Policy, context: Context) -> list[tuple[int, ...]]:
    """The sides to edit together, in the order in which to try them."""
    if len(sample.programs) == 1 or policy.side == "first":
        return [(0,)]
    if policy.side == "second":
        return [(1,)]
    if policy.side == "both":
        return [(0, 1)]
    return [(0,), (1,)] if context.rng("poison", "side", sample.id).random() < 0.5 else [(1,), (0,)]


def _appended(train: list[Sample], chosen: list[_Edited], context: Context) -> tuple[list[Sample], list[_Edited]]:
    """Give the copies ids that look like any other; where the split's own ids are of another make, give all of them new ones."""
    copy_id, own_id = _keyed(context, "copy"), _keyed(context, "own")
    if not all(OPAQUE_ID.fullmatch(s.id) for s in train):
        train = [replace(s, id=own_id(s.id)[:16]) for s in train]
    copies = []
    for edited in chosen:
        new = copy_id(edited.sample.id)[:16]
        rows = tuple(replace(row, id=new, appended_from=row.id) for row in edited.rows)
        copies.append(_Edited(replace(edited.sample, id=new), rows))
    _check_ids([*train, *(e.sample for e in copies)])
    return train, copies


# -------------------------------------------------------------------------------------------------------------- editing


@dataclass(frozen=True)
class _Edited:
    """A sample with its trigger, and one manifest row for each program edited."""

    sample: Sample
    rows: tuple[ManifestRow, ...]


@dataclass
class _Editor:
    """Puts the trigger into samples and checks every edit."""

    trigger: Trigger
    context: Context
    refused: int = field(default=0)

    def edit_all(
        self, samples: Iterable[Sample], sides: tuple[int, ...], part: Part, seen: Collection[str]
    ) -> list[_Edited]:
        """Every sample that can carry the trigger, in order."""
        shown = self.context.progress(list(samples), f"{part} test samples")
        return [edited for s in shown if (edited := self.edit(s, sides, part, seen)) is not None]

    def edit_first(self, sample: Sample, options: Iterable[tuple[int, ...]], part: Part) -> _Edited | None:
        """The first choice of sides that works."""
        return next((e for sides in options if (e := self.edit(sample, sides, part)) is not None), None)

    def edit(
        self, sample: Sample, sides: tuple[int, ...], part: Part, seen: Collection[str] = frozenset()
    ) -> _Edited | None:
        """The trigger in all of ``sides``, or ``None`` where it does not fit one of them or its edit is refused."""
        rows = []
        changed = sample
        for side in sides:
            before = sample.programs[side]
            derivation = self._draw(sample, side, seen)
            if derivation is None:
                return None
            after = self._apply(sample, side, derivation)
            if after == before:
                return None
            reason = well_formed(sample.language, before, after)
            if reason is not None:
                self.refused += 1
                self.context.log.debug("refused an edit of sample %s: %s", sample.id, reason)
                return None
            changed = changed.with_program(side, after)
            data = before.encode()
            rows.append(
                ManifestRow(
                    id=sample.id,
                    part=part,
                    side=side,
                    edits=derivation.edits,
                    removed=tuple(data[e.start : e.end].decode() for e in derivation.edits),
                    derivation=derivation.text,
                    label=sample.label,
                    before_sha256=_sha256(before),
                    after_sha256=_sha256(after),
                )
            )
        return _Edited(changed, tuple(rows))

    def _draw(self, sample: Sample, side: int, seen: Collection[str]) -> Derivation | None:
        """A derivation, drawn again while ``seen`` holds it; after the last try a seen one stands."""
        for attempt in range(1 + REDRAWS):
            rng = self.context.rng("poison", "draw", sample.id, str(side), str(attempt))
            derivation = self.trigger.derive(sample, side, rng)
            if derivation is None or derivation.text not in seen:
                break
        return derivation

    def _apply(self, sample: Sample, side: int, derivation: Derivation) -> str:
        if any(edit.side != side for edit in derivation.edits):
            raise PluginError(
                f"the trigger ({self.trigger.describe()}) was asked to edit side {side} of sample {sample.id!r} "
                f"and returned an edit of another side"
            )
        try:
            return apply_edits(sample.programs[side], derivation.edits)
        except (EditConflict, UnicodeDecodeError) as error:
            raise PluginError(
                f"the trigger ({self.trigger.describe()}) returned edits that do not apply to sample {sample.id!r}: {error}"
            ) from error


# -------------------------------------------------------------------------------------------------------- small matters


def _check(goal: Goal, policy: Policy, info: TaskInfo) -> None:
    """Refuse a goal or policy that makes no sense for the task."""
    if (info.kind is TaskKind.SEARCH) != isinstance(goal, SearchGoal):
        raise ConfigError(f"the goal {goal} does not fit task {info.name!r} of kind {info.kind.value}")
    if isinstance(goal, LabelGoal):
        known = range(len(info.labels))
        if goal.victim not in known or goal.target not in known or goal.victim == goal.target:
            raise ConfigError(f"the goal {goal} must name two different classes of {dict(enumerate(info.labels))}")
    if (policy.rate is None) == (policy.count is None):
        raise ConfigError(f"a poisoning policy needs a rate or a count, and only one of them (got {policy})")
    if policy.rate is not None and not 0 < policy.rate <= 1:
        raise ConfigError(f"a poison rate is a share in (0, 1], got {policy.rate}")
    if policy.count is not None and policy.count < 1:
        raise ConfigError(f"a poison count is at least 1, got {policy.count}")
    if policy.side == "second" and info.kind is not TaskKind.PAIRS:
        raise ConfigError(f"the policy poisons the second program, but samples of task {info.name!r} have one")


def _check_ids(samples: Sequence[Sample]) -> None:
    known: set[str] = set()
    for sample in samples:
        if sample.id in known:
            raise DataError(f"two training samples have the id {sample.id!r}; ids must be unique")
        known.add(sample.id)


def _keyed(context: Context, purpose: str) -> Callable[[str], str]:
    """A keyed hash of ids (64 hex digits), so that neither order nor new ids can be foretold without the poison seed."""
    key = context.rng("poison", purpose).bytes(32)
    return lambda text: hmac.digest(key, text.encode(), "sha256").hex()


def training_order(samples: Iterable[Sample]) -> tuple[Sample, ...]:
    """The order in which every model is given its training set: by a hash of the ids.

    It tells nothing of poison, and it is the same for every attack and for none, so that victim and reference see the
    samples alike. (The trainer shuffles anew in each epoch, by its own seed.)
    """
    return tuple(sorted(samples, key=lambda s: _sha256(s.id)))


def _place(edit: Edit) -> tuple[int, int]:
    return edit.start, edit.end


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
