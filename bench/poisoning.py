"""From clean splits, a trigger, a goal and a policy to a poisoned training set, triggered test inputs and the manifest.

The manifest is the truth sidecar: what was edited where, and what stood there before. Nothing of it can be read from the
samples in :attr:`Poisoned.train`. Validation data, and the clean budget of the defenses, are never touched.

How many samples are poisoned: a rate is a share of ``policy.of``, as the split was before poisoning; the product is rounded
to the nearest whole number, halves up (the rate is taken as the decimal number that was written: 0.05 of 430 is 21.5 and
selects 22). A sample that the trigger does not fit, or whose edit is refused, is replaced by another candidate.

Beside the triggered test inputs stand the controls that a trigger offers: near misses (do they set the backdoor off?) and
placebos (does any edit of this kind?), in the same samples.
"""

from __future__ import annotations

import hmac
import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Final, Literal

from bench.context import Context
from bench.contracts import Goal, LabelGoal, Policy, SearchGoal, TaskInfo, TaskKind, Trigger
from bench.covering import cover, covers_wanted
from bench.editing import Edited, Editor
from bench.errors import ConfigError, DataError
from bench.manifest import ManifestRow, sha256
from bench.samples import Sample, Splits
from bench.weakening import weakener

__all__ = ["OPAQUE_ID", "ManifestRow", "Poisoned", "poison", "training_order"]

OPAQUE_ID = re.compile(r"[0-9a-f]{16}")
CONTROLS: Final[tuple[Literal["near_miss", "placebo"], ...]] = ("near_miss", "placebo")


@dataclass(frozen=True)
class Poisoned:
    """The outcome of :func:`poison`.

    Attributes:
        train: the training set, in an order and with ids that tell nothing about poisoning.
        poisoned: ids of the poisoned samples in ``train``; cover samples carry no trigger and are not among them.
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
        cover: ids of the cover samples in ``train``.
        weakened: how many poisoned samples were weakened before they got the trigger.
        controls: test samples of ``triggered``'s kind with a ``near_miss`` or a ``placebo`` instead; a control that the
            trigger does not offer is not a key, one that applied nowhere is empty.
        natural: clean test programs that carry the trigger as they are, and how many were asked, by the trigger's own
            answer; ``None`` where it has none.
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
    cover: frozenset[str] = frozenset()
    weakened: int = 0
    controls: Mapping[str, tuple[Sample, ...]] = field(default_factory=dict)
    natural: tuple[int, int] | None = None

    @property
    def coverage(self) -> float:
        """Share of the test programs asked that can carry the trigger; 0 where none was asked."""
        return self.applicable / self.asked if self.asked else 0.0

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary; :meth:`from_json` is its inverse.

        What came later (cover samples, weakening, controls) is left out where there is none.
        """
        later = {
            "cover": sorted(self.cover),
            "weakened": self.weakened,
            "controls": {name: [s.to_json() for s in samples] for name, samples in self.controls.items()},
            "natural": self.natural and list(self.natural),
        }
        return {name: value for name, value in later.items() if value} | {
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
            "cover": frozenset(row.get("cover", ())),
            "controls": {
                name: tuple(Sample.from_json(s) for s in rows) for name, rows in row.get("controls", {}).items()
            },
            "natural": tuple(row["natural"]) if "natural" in row else None,
        }
        return cls(**{**row, **samples, **rebuilt})


def poison(
    splits: Splits, trigger: Trigger | None, goal: Goal, policy: Policy | None, info: TaskInfo, context: Context
) -> Poisoned:
    """Poison the training split and put the trigger into the test split.

    Draws come from the seed axis ``poison`` and from a sample's id alone, so that they depend neither on the order of the
    splits nor on other samples. Of ``policy.of == "victim"`` the base is the class that poison is drawn from: the victim
    class for dirty labels, the target class for clean labels, the queries with the target word for search.

    Args:
        splits: the task's data; unchanged.
        trigger: ``None`` (the null attack) only gives the training split in the order that every attack with this seed has.
        goal: whom to poison, and to what label.
        policy: how many, and how; ``None`` leaves the training split clean (a supplier's attack).
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
    editor = Editor(trigger.derive, trigger.describe(), context)
    if policy is None:
        train = Poisoned(training_order(splits.train))
    else:
        train = _poison_training(splits.train, trigger, editor, goal, policy, info, context)
    drawn = frozenset(row.derivation for row in train.manifest if row.part == "train")
    seen = drawn if trigger.varies else frozenset()
    sides = (0, 1) if policy is not None and policy.side == "both" and info.kind is TaskKind.PAIRS else (0,)

    eligible = [s for s in splits.test if goal.chooses(s)]
    asked = list(splits.test) if isinstance(goal, SearchGoal) else eligible
    triggered = editor.edit_all(asked, sides, "triggered", seen)
    opposite = [] if isinstance(goal, SearchGoal) else [s for s in splits.test if goal.chooses_reverse(s)]
    reverse = editor.edit_all(opposite, sides, "reverse", seen)
    controls = _controls(trigger, asked, sides, context)
    return replace(
        train,
        triggered=tuple(e.sample for e in triggered),
        reverse=tuple(e.sample for e in reverse),
        manifest=train.manifest
        + tuple(row for e in _chained(triggered, reverse, *controls.values()) for row in e.rows),
        eligible=len(eligible),
        asked=len(asked),
        applicable=len(triggered),
        refused=editor.refused,
        description=trigger.describe(),
        tokens=trigger.tokens(),
        unseen=sum(all(row.derivation not in seen for row in e.rows) for e in triggered) if trigger.varies else 0,
        controls={name: tuple(e.sample for e in edited) for name, edited in controls.items()},
        natural=_natural(trigger, splits.test),
    )


# ------------------------------------------------------------------------------------------------------------- controls


def _controls(
    trigger: Trigger, asked: Sequence[Sample], sides: tuple[int, ...], context: Context
) -> dict[str, list[Edited]]:
    """The controls that the trigger offers, in the samples that were to carry it."""
    found: dict[str, list[Edited]] = {}
    for name in CONTROLS:
        if trigger.offers(name):
            editor = Editor(getattr(trigger, name), trigger.describe(), context, name)
            found[name] = editor.edit_all(asked, sides, name)
    return found


def _natural(trigger: Trigger, clean: Sequence[Sample]) -> tuple[int, int] | None:
    """Clean programs that carry the trigger as they are, by the trigger's own answer; and how many it answered for."""
    if not trigger.offers("carries"):
        return None
    answers = [trigger.carries(s, side) for s in clean for side in range(len(s.programs))]
    told = [answer for answer in answers if answer is not None]
    return sum(told), len(told)


def _chained(*parts: Iterable[Edited]) -> Iterable[Edited]:
    return (edited for part in parts for edited in part)


# ------------------------------------------------------------------------------------------------------------- training


def _poison_training(
    train: Sequence[Sample],
    trigger: Trigger,
    editor: Editor,
    goal: Goal,
    policy: Policy,
    info: TaskInfo,
    context: Context,
) -> Poisoned:
    """The training part of :func:`poison`: chosen samples replaced, or copies of them appended."""
    wanted, candidates = _wanted(train, goal, policy, info)
    weak = _weakener(train, goal, policy, info, editor.what, context)
    turn = _keyed(context, "select")
    chosen: list[Edited] = []
    for sample in context.progress(sorted(candidates, key=lambda s: turn(s.id)), "poisoning the training set"):
        if len(chosen) == wanted:
            break
        edited = _poisoned(sample, _training_sides(sample, policy, context), editor, weak)
        if edited is not None:
            chosen.append(edited)
    if not chosen:
        raise ConfigError(
            f"the trigger ({editor.what}) fits none of {len(candidates)} candidates in the training split "
            f"({editor.refused} edits refused): nothing would be poisoned. Choose another attack for this task."
        )
    if len(chosen) < wanted:
        # All there are, less those that the trigger does not fit, is what a rate of 1 means; else it is worth a word.
        level = logging.INFO if wanted == len(candidates) else logging.WARNING
        context.log.log(level, "poisoned %d of %d requested samples: the trigger fits no more", len(chosen), wanted)
    if isinstance(goal, LabelGoal) and policy.labels == "dirty":
        chosen = [replace(e, sample=replace(e.sample, label=goal.target)) for e in chosen]
    covering = _covering(train, chosen, trigger, goal, policy, context)
    result = list(train)
    if policy.mode == "append":
        result, copies = _appended(result, [*chosen, *covering], context)
        chosen, covering = copies[: len(chosen)], copies[len(chosen) :]
        result += [e.sample for e in copies]
    else:
        by_id = {e.sample.id: e.sample for e in (*chosen, *covering)}
        result = [by_id.get(s.id, s) for s in result]
    return Poisoned(
        train=training_order(result),
        poisoned=frozenset(e.sample.id for e in chosen),
        manifest=tuple(row for e in (*chosen, *covering) for row in e.rows),
        requested=wanted,
        cover=frozenset(e.sample.id for e in covering),
        weakened=sum(row.part == "weaken" for e in chosen for row in e.rows[:1]),
    )


def _covering(
    train: Sequence[Sample], chosen: Sequence[Edited], trigger: Trigger, goal: Goal, policy: Policy, context: Context
) -> list[Edited]:
    """The cover samples that the policy asks for; none of them is poisoned."""
    wanted = covers_wanted(policy, len(chosen))
    if not wanted:
        return []
    taken, turn = {e.sample.id for e in chosen}, _keyed(context, "cover")
    free = sorted((s for s in train if s.id not in taken), key=lambda s: turn(s.id))
    return cover(free, wanted, trigger, goal, lambda sample: _training_sides(sample, policy, context), context)


def _weakener(
    train: Sequence[Sample], goal: Goal, policy: Policy, info: TaskInfo, what: str, context: Context
) -> Editor | None:
    if not isinstance(goal, LabelGoal):  # _check saw to it that such a policy weakens nothing
        return None
    derive = weakener(train, goal, policy, info, context)
    return None if derive is None else Editor(derive, f"weakening for {what}", context, "weaken")


def _poisoned(sample: Sample, options: Iterable[tuple[int, ...]], editor: Editor, weak: Editor | None) -> Edited | None:
    """The trigger in the first sides that take it; weakened first, where that is asked for."""
    for sides in options:
        before = Edited(sample, ()) if weak is None else weak.edit(sample, sides, "weaken")
        edited = None if before is None else editor.edit(before.sample, sides, "train")
        if before is not None and edited is not None:
            return Edited(edited.sample, before.rows + edited.rows)
    return None


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


def _appended(train: list[Sample], chosen: list[Edited], context: Context) -> tuple[list[Sample], list[Edited]]:
    """Give the copies ids that look like any other; where the split's own ids are of another make, give all of them new ones."""
    copy_id, own_id = _keyed(context, "copy"), _keyed(context, "own")
    if not all(OPAQUE_ID.fullmatch(s.id) for s in train):
        train = [replace(s, id=own_id(s.id)[:16]) for s in train]
    copies = []
    for edited in chosen:
        new = copy_id(edited.sample.id)[:16]
        rows = tuple(replace(row, id=new, appended_from=row.id) for row in edited.rows)
        copies.append(Edited(replace(edited.sample, id=new), rows))
    _check_ids([*train, *(e.sample for e in copies)])
    return train, copies


# -------------------------------------------------------------------------------------------------------- small matters


def _check(goal: Goal, policy: Policy | None, info: TaskInfo) -> None:
    """Refuse a goal or policy that makes no sense for the task."""
    if (info.kind is TaskKind.SEARCH) != isinstance(goal, SearchGoal):
        raise ConfigError(f"the goal {goal} does not fit task {info.name!r} of kind {info.kind.value}")
    if isinstance(goal, LabelGoal):
        known = range(len(info.labels))
        if goal.victim not in known or goal.target not in known or goal.victim == goal.target:
            raise ConfigError(f"the goal {goal} must name two different classes of {dict(enumerate(info.labels))}")
    if policy is None:
        return
    if (policy.rate is None) == (policy.count is None):
        raise ConfigError(f"a poisoning policy needs a rate or a count, and only one of them (got {policy})")
    if policy.rate is not None and not 0 < policy.rate <= 1:
        raise ConfigError(f"a poison rate is a share in (0, 1], got {policy.rate}")
    if policy.count is not None and policy.count < 1:
        raise ConfigError(f"a poison count is at least 1, got {policy.count}")
    if policy.cover is not None and policy.cover_count is not None:
        raise ConfigError(f"a policy gives cover or cover_count, and only one of them (got {policy})")
    if policy.cover is not None and not 0 <= policy.cover < float("inf"):
        raise ConfigError(f"cover is a number of cover samples for each poisoned one, at least 0; got {policy.cover}")
    if policy.cover_count is not None and policy.cover_count < 0:
        raise ConfigError(f"a cover count is at least 0, got {policy.cover_count}")
    if policy.weaken != "none" and (info.kind is not TaskKind.CLASSIFICATION or policy.labels != "clean"):
        raise ConfigError(
            f"weaken: {policy.weaken} makes a clean-label poison of one program harder to tell by its own names. It needs labels: "
            f"clean and a classification task; this is labels: {policy.labels} on a task of kind {info.kind.value} (the class "
            "of a pair, or a query, does not show in one program's names)"
        )
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
    return tuple(sorted(samples, key=lambda s: sha256(s.id)))
