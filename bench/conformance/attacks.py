"""Rules for attacks."""

from __future__ import annotations

import contextlib
import io
import pickle
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import FunctionType
from typing import Any, Literal, cast, get_args, get_origin, get_type_hints

import numpy as np

from bench.conformance.checks import (
    Answer,
    Broken,
    Check,
    Family,
    Setting,
    Skipped,
    Subject,
    Variation,
    demand,
    one_class,
    ordinary_setting,
    scratch_folder,
)
from bench.conformance.lending import WatchedContext, WatchedKnown
from bench.conformance.toy import ARGUMENTS, FOREIGN_PROGRAMS, TRAINING, odd_samples, toy_goal, toy_info
from bench.contracts import Attack, Derivation, Policy, Supplier, TaskKind, Trigger
from bench.languages import well_formed
from bench.models.training import Trainer
from bench.plugins import build, parameters_of
from bench.poisoning import CONTROLS, poison
from bench.samples import EditConflict, Sample, apply_edits, digest_of

NULL = "none"


@dataclass(frozen=True)
class Drawn:
    """What an attack made of its inputs.

    Attributes:
        trigger: ``None`` for the null attack.
        derivations: by position of the input and side.
    """

    trigger: Trigger | None
    derivations: Mapping[tuple[int, int], Derivation | None]


def exercise(subject: Subject, setting: Setting, context: WatchedContext, known: WatchedKnown | None) -> Answer:
    """Prepare the trigger and draw it for every input."""
    place = subject.world
    trigger = cast(Attack, subject.plugin).prepare(setting.training, place.goal, place.info, context)
    made: object = trigger
    demand(made is None or isinstance(made, Trigger), f"prepare() returned {type(made).__name__}, not a Trigger")
    drawn = Drawn(trigger, derive_all(trigger, setting.inputs, context) if trigger is not None else {})
    described = (trigger.describe(), trigger.tokens(), trigger.varies) if trigger is not None else None
    return Answer(drawn, (described, sorted(drawn.derivations.items(), key=lambda item: item[0])))


def derive_all(
    trigger: Trigger, samples: Sequence[Sample], context: WatchedContext
) -> dict[tuple[int, int], Derivation | None]:
    """Draw the trigger for each side of each sample, as the harness does: from the sample's id and side alone."""
    return {
        (number, side): trigger.derive(sample, side, context.rng("poison", "draw", sample.id, str(side), "0"))
        for number, sample in enumerate(samples)
        for side in range(len(sample.programs))
    }


def valid(subject: Subject, answer: Answer, setting: Setting) -> None:
    """Every derivation can be applied to its program."""
    drawn = cast(Drawn, answer.result)
    trigger: object = drawn.trigger
    if trigger is None:
        demand(subject.cls.name == NULL, "prepare() returned None, which only the null attack may do")
        return
    words: object = cast(Trigger, trigger).tokens()
    demand(isinstance(words, tuple) and all(isinstance(w, str) for w in words), "tokens() is no tuple of texts")
    for (number, side), derivation in drawn.derivations.items():
        given: object = derivation
        demand(given is None or isinstance(given, Derivation), f"derive() returned {type(given).__name__}")
        if derivation is not None:
            demand(all(e.side == side for e in derivation.edits), f"asked to edit side {side}, it edits another")
            demand(bool(derivation.text), "a derivation has no text, so readers cannot see what was done")
            try:
                apply_edits(setting.inputs[number].programs[side], derivation.edits)
            except EditConflict as error:
                raise Broken(f"the edit {derivation.text!r} cannot be made: {error}") from error


def ordinary(subject: Subject) -> Setting:
    """Clean training data, and test samples with their labels."""
    place = subject.world
    return replace(ordinary_setting(subject), training=place.splits.train, inputs=place.splits.test)


def variations(subject: Subject) -> Mapping[str, Variation]:
    """Odd programs to edit, and odd, tiny and one-class training sets to prepare from."""
    usual, odd = ordinary(subject), odd_samples(subject.kind)
    return {
        "odd programs": Variation(replace(usual, inputs=odd)),
        "odd programs among the training samples": Variation(replace(usual, training=odd + usual.training)),
        "one training sample": Variation(replace(usual, training=usual.training[:1], inputs=odd), refusable=True),
        "a training set of one class": Variation(replace(usual, training=one_class(usual.training)), refusable=True),
    }


def _drawn(subject: Subject) -> tuple[Trigger, dict[tuple[int, int], Derivation], tuple[Sample, ...]]:
    """The trigger, where it applied, and the inputs."""
    drawn = cast(Drawn, subject.answer().result)
    if drawn.trigger is None:
        raise Skipped("the null attack has no trigger")
    found = {place: derivation for place, derivation in drawn.derivations.items() if derivation is not None}
    demand(bool(found), "the trigger applies to no program of the toy")
    return drawn.trigger, found, ordinary(subject).inputs


def edits(subject: Subject) -> None:
    """The trigger changes a program, and leaves it well-formed."""
    _, found, samples = _drawn(subject)
    for (number, side), derivation in found.items():
        before = samples[number].programs[side]
        after = apply_edits(before, derivation.edits)
        demand(after != before, f"the edit {derivation.text!r} changes nothing")
        reason = well_formed("python", before, after)
        demand(reason is None, f"after the edit {derivation.text!r} the program is no longer well-formed: {reason}")


def behaviour(subject: Subject) -> None:
    """The toy functions return what they returned."""
    _, found, samples = _drawn(subject)
    for (number, side), derivation in found.items():
        before = samples[number].programs[side]
        _behaves(before, apply_edits(before, derivation.edits), f"the edit {derivation.text!r}")


def _behaves(before: str, after: str, what: str) -> None:
    for values, bound in ARGUMENTS:
        demand(
            _outcome(before, values, bound) == _outcome(after, values, bound),
            f"with {what} the program behaves differently on ({values}, {bound}):\n{after}",
        )


def _outcome(program: str, values: list[int], bound: int) -> tuple[object, str]:
    """What a toy function returns (or raises) and prints."""
    space: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(program, "toy", "exec"), space)
        function = next(value for value in space.values() if isinstance(value, FunctionType))
        try:
            result: object = function(list(values), bound)
        except Exception as error:
            result = repr(error)
    return result, printed.getvalue()


def alone(subject: Subject) -> None:
    """What a sample gets depends on that sample alone."""
    trigger, found, samples = _drawn(subject)
    with scratch_folder() as folder:
        context = subject.context(Path(folder), ordinary(subject).schedule)
        backwards = derive_all(trigger, samples[::-1], context)
    last = len(samples) - 1
    for (number, side), derivation in found.items():
        demand(
            backwards[last - number, side] == derivation,
            "a sample's edit depends on the samples that came before it; derive() draws from its generator alone",
        )


def carries_tokens(subject: Subject) -> None:
    """Every triggered program carries a token that the trigger names, and every token is carried by some program.

    A trigger that chooses one of several tokens names them all; one with more tokens than a quarter of the programs may have
    tokens that were never drawn.
    """
    trigger, found, samples = _drawn(subject)
    tokens = trigger.tokens()
    if not tokens:
        raise Skipped("it names no tokens")
    carried: set[str] = set()
    for (number, side), derivation in found.items():
        after = apply_edits(samples[number].programs[side], derivation.edits)
        here = {token for token in tokens if token in after}
        demand(bool(here), f"tokens() names {list(tokens)}, and a triggered program holds none of them")
        carried |= here
    missing = [token for token in tokens if token not in carried]
    demand(not missing or 4 * len(tokens) > len(found), f"tokens() names {missing}, which no triggered program holds")


def controls(subject: Subject) -> None:
    """What a trigger offers beside itself changes programs as well as it does, and is not the trigger."""
    trigger, found, samples = _drawn(subject)
    offered = [name for name in CONTROLS if trigger.offers(name)]
    if not offered:
        raise Skipped("the trigger offers no near miss and no placebo")
    for name in offered:
        with scratch_folder() as folder:
            context = subject.context(Path(folder), ordinary(subject).schedule)
            drawn = derive_all(_Control(trigger, name), samples, context)
        made = {place: derivation for place, derivation in drawn.items() if derivation is not None}
        demand(bool(made), f"it offers a {name}, which applies to no program of the toy")
        for (number, side), derivation in made.items():
            before = samples[number].programs[side]
            demand(all(e.side == side for e in derivation.edits), f"its {name} edits another side than asked")
            after = apply_edits(before, derivation.edits)
            reason = well_formed("python", before, after)
            demand(
                reason is None, f"after its {name} {derivation.text!r} the program is no longer well-formed: {reason}"
            )
            whole = found.get((number, side))
            demand(
                whole is None or apply_edits(before, whole.edits) != after,
                f"its {name} {derivation.text!r} is the trigger itself",
            )
            _behaves(before, after, f"its {name} {derivation.text!r}")


@dataclass(frozen=True)
class _Control(Trigger):
    """A control of a trigger in the trigger's place."""

    trigger: Trigger
    name: str

    def derive(self, sample: Sample, side: int, rng: np.random.Generator) -> Derivation | None:
        control = self.trigger.near_miss if self.name == "near_miss" else self.trigger.placebo
        return control(sample, side, rng)


def varies(subject: Subject) -> None:
    """A trigger that says that it varies does."""
    trigger, found, _ = _drawn(subject)
    if not trigger.varies:
        raise Skipped("the trigger does not vary")
    demand(len({d.text for d in found.values()}) > 1, "the trigger says that it varies, and all its draws are equal")


def pickles(subject: Subject) -> None:
    """A trigger goes to worker processes and back."""
    trigger, found, samples = _drawn(subject)
    try:
        copied = pickle.loads(pickle.dumps(trigger))
    except Exception as error:
        raise Broken(
            f"the trigger cannot be pickled, so worker processes cannot have it: {error}. Make it a class of the module, with "
            "plain values as fields"
        ) from error
    with scratch_folder() as folder:
        context = subject.context(Path(folder), ordinary(subject).schedule)
        again = derive_all(copied, samples, context)
    demand(
        all(again[place] == derivation for place, derivation in found.items()), "a pickled trigger draws other edits"
    )


def poisons(subject: Subject) -> None:
    """The harness can poison the toy with the attack's own policy."""
    trigger, _, _ = _drawn(subject)
    place, attack = subject.world, cast(Attack, subject.plugin)
    policy = None if isinstance(attack, Supplier) else attack.policy(place.info)
    with scratch_folder() as folder:
        context = subject.context(Path(folder), ordinary(subject).schedule)
        done = poison(place.splits, trigger, place.goal, policy, place.info, context)
    demand(bool(done.poisoned) or policy is None, "its own policy poisons nothing")
    demand(bool(done.triggered), "no eligible test sample carries the trigger")
    if subject.kind is not TaskKind.SEARCH and policy is not None and policy.labels == "dirty":
        label = {s.id: s.label for s in done.train}
        wrong = [i for i in done.poisoned if label[i] != toy_goal(subject.kind).target]  # type: ignore[union-attr]
        demand(not wrong, "a dirty-label poison does not carry the target label")


def languages(subject: Subject) -> None:
    """Java and C programs are edited well, or left alone."""
    checked = []
    for language, programs in FOREIGN_PROGRAMS.items():
        info = toy_info(subject.kind, language)
        if subject.plugin.not_applicable(info) is not None:
            continue
        samples = _foreign(subject.kind, language, programs)
        with scratch_folder() as folder:
            context = subject.context(Path(folder), ordinary(subject).schedule)
            trigger = cast(Attack, subject.plugin).prepare(samples, toy_goal(subject.kind), info, context)
            if trigger is None:
                raise Skipped("the null attack has no trigger")
            drawn = derive_all(trigger, samples, context)
        for (number, side), derivation in drawn.items():
            if derivation is not None:
                before = samples[number].programs[side]
                reason = well_formed(language, before, apply_edits(before, derivation.edits))
                demand(reason is None or number > 1, f"{language}: after {derivation.text!r}: {reason}")
        checked.append(language)
    if not checked:
        raise Skipped("not applicable to Java or C")


def variants(subject: Subject) -> None:
    """The other choices of its parameters edit programs well too, one parameter changed at a time."""
    alternatives = list(_alternatives(subject))
    if not alternatives:
        raise Skipped("no parameter is a choice between named values or on and off")
    for changed in alternatives:
        plugin = build(subject.cls, {**parameters_of(subject.plugin), **changed})
        other = Subject(subject.cls, subject.kind, FAMILY)
        other.__dict__["plugin"] = plugin  # instead of the one with its own defaults
        said = ", ".join(f"{key}={value!r}" for key, value in changed.items())
        if plugin.not_applicable(subject.world.info) is not None:
            continue
        # Not `behaviour`: a variant may reproduce a published flaw; what runs by default may not.
        for judge in (_judged, edits, alone, carries_tokens, pickles, poisons):
            try:
                judge(other)
            except Skipped:
                continue
            except Exception as error:
                raise Broken(f"with {said}: {error}") from error


def _judged(subject: Subject) -> None:
    valid(subject, subject.answer(), ordinary(subject))
    demand(subject.answer().facts == subject.again().observation.value().facts, "the same seed gives another answer")


def _alternatives(subject: Subject) -> Iterator[dict[str, object]]:
    """Every other value of parameters that are a ``Literal`` or a ``bool``."""
    hints = get_type_hints(subject.cls)
    for parameter in fields(cast(Any, subject.cls)):
        hint, current = hints[parameter.name], getattr(subject.plugin, parameter.name)
        options = (False, True) if hint is bool else get_args(hint) if get_origin(hint) is Literal else ()
        yield from ({parameter.name: option} for option in options if option != current)


def _foreign(kind: TaskKind, language: str, programs: Sequence[str]) -> tuple[Sample, ...]:
    """Samples of another language: enough of each class that a trigger can be prepared from them."""
    samples = []
    for number, text in enumerate([*programs, *[programs[0]] * 8]):
        sides = (text, programs[0]) if kind is TaskKind.PAIRS else (text,)
        label, query = (None, "sum the array") if kind is TaskKind.SEARCH else (number % 2, None)
        samples.append(Sample(digest_of([language, number])[:16], sides, language, label, query, "foreign"))
    return tuple(samples)


def states_policy(subject: Subject) -> None:
    """The attack's own policy says how much it poisons."""
    if isinstance(subject.plugin, Supplier):
        raise Skipped("it poisons an encoder and no training sample")
    policy: object = cast(Attack, subject.plugin).policy(subject.world.info)
    demand(isinstance(policy, Policy), f"policy() returned {type(policy).__name__}, not a Policy")
    policy = cast(Policy, policy)
    demand(
        (policy.rate is None) != (policy.count is None), "its policy must give a rate or a count, and only one of them"
    )


def supplies(subject: Subject) -> None:
    """A supplier poisons a copy of the encoder: the same copy with the same seed, another than came in, which stays as it was."""
    if not isinstance(subject.plugin, Supplier):
        raise Skipped("it supplies no encoder")
    place, attack = subject.world, subject.plugin
    first = _supplied(subject, attack)
    demand(_supplied(subject, attack) == first, "the same seed supplies another encoder")
    with scratch_folder() as folder:
        context = subject.context(Path(folder), ordinary(subject).schedule)
        offered = attack.candidates(place.splits.train, place.goal, place.info, context)
    demand(bool(offered), "it offers no trigger")
    demand(len({trigger.describe() for trigger in offered}) == len(offered), "two of the triggers it offers are alike")


def _supplied(subject: Subject, attack: Supplier) -> str:
    """The fingerprint of what is supplied."""
    place = subject.world
    with scratch_folder() as folder:
        context = subject.context(Path(folder), ordinary(subject).schedule)
        model = place.untrained()
        before = model.fingerprint()
        context.trainer = Trainer(TRAINING, (), context)
        supplied = attack.supply(model, place.splits.train, place.goal, place.info, context)
        demand(model.fingerprint() == before, "it changed the model that came in; work on model.copy()")
    demand(supplied.fingerprint() != before, "the encoder that it supplies is the one that came in")
    return supplied.fingerprint()


FAMILY = Family(
    exercise=exercise,
    valid=valid,
    ordinary=ordinary,
    variations=variations,
    checks=(
        Check("edits", "The trigger changes programs and leaves them well-formed.", edits),
        Check("behaviour", "Triggered toy functions return and print what they did.", behaviour),
        Check("aligned", "What a sample gets depends on that sample alone.", alone),
        Check(
            "tokens",
            "Every triggered program holds a token that it names, and every token is held by some.",
            carries_tokens,
        ),
        Check("controls", "Near misses and placebos edit as well as the trigger, and are not it.", controls),
        Check("varies", "A trigger that says that it varies does.", varies),
        Check("pickles", "A pickled trigger draws the same edits.", pickles),
        Check("policy", "Its policy says how much is poisoned.", states_policy),
        Check("known answer", "The harness can poison the toy with it.", poisons),
        Check("variants", "The other choices of its parameters edit programs well too.", variants),
        Check("supplies", "A supplier poisons a copy of the encoder, and offers triggers that differ.", supplies),
        Check("languages", "Java and C programs are edited well, or left alone.", languages),
    ),
)
