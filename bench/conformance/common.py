"""The checks that every family shares."""

from __future__ import annotations

import importlib.util
import json
import pickle
import re

from bench.conformance.checks import Act, Check, Skipped, Subject, Variation, demand, said
from bench.conformance.watch import observe
from bench.contracts import Defense, TaskKind
from bench.errors import BenchError, ConfigError
from bench.plugins import build, parameters_of

CONTROLS = ("none", "oracle", "random")
"""Names that need no paper: the first-class nulls."""
NAME = re.compile(r"[a-z][a-z0-9_]*")


# ---------------------------------------------------------------------------------------------------- the class alone


def metadata(subject: Subject) -> None:
    """Name, version, summary, paper and kinds are stated."""
    cls = subject.cls
    demand(
        NAME.fullmatch(cls.name) is not None, f"the name {cls.name!r} should match {NAME.pattern}, as suites spell it"
    )
    version: object = cls.version
    demand(type(version) is int and cls.version >= 1, f"version is {version!r}; it is a whole number from 1 up")
    demand(bool(cls.summary.strip()), "summary is empty; say in one line what it does")
    demand("\n" not in cls.summary, "summary has several lines; lists and boards have room for one")
    cited = bool(cls.paper.strip()) or cls.name in CONTROLS or cls.family == "task"
    demand(cited, 'paper is empty; cite it, or write "unpublished" (only none, oracle and random go without)')
    kinds: object = cls.kinds
    fits = isinstance(kinds, frozenset) and bool(kinds) and all(isinstance(k, TaskKind) for k in kinds)
    demand(fits, f"kinds is {kinds!r}; it is a frozenset of at least one TaskKind")
    for package in cls.requires:
        demand(
            package.isidentifier() or "." in package, f"requires names {package!r}, which cannot be a package to import"
        )


def parameters(subject: Subject) -> None:
    """Parameters have defaults, are JSON, round-trip, and unknown ones are refused."""
    cls = subject.cls
    for given in ({}, dict(cls.toy_parameters)):
        plugin = build(cls, given)
        effective = json.loads(json.dumps(parameters_of(plugin), allow_nan=False))
        demand(
            build(cls, effective) == plugin, f"rebuilding it from its own parameters {effective} gives another plugin"
        )
        demand(
            pickle.loads(pickle.dumps(plugin)) == plugin,
            "it does not survive pickling, so worker processes cannot run it",
        )
    try:
        build(cls, {"no_such_parameter_at_all": 1})
    except ConfigError:
        return
    demand(False, "it accepts a parameter that it does not have")


def constructor(subject: Subject) -> None:
    """Building a plugin does nothing but hold its parameters."""
    seen = observe(lambda scratch: build(subject.cls, {}), sources=subject.sources)
    seen.value()
    demand(not seen.printed, f"its constructor prints: {seen.printed[:200]!r}")
    demand(not seen.written, f"its constructor writes {', '.join(seen.written)}")
    demand(not seen.contacted, f"its constructor uses the network: {', '.join(seen.contacted)}")
    demand(not seen.generators, f"its constructor changes the global generators of {', '.join(seen.generators)}")


CLASS_CHECKS = (
    Check("metadata", "Name, version, summary, paper and kinds are stated.", metadata),
    Check("parameters", "Parameters are JSON, round-trip, and unknown ones are refused.", parameters),
    Check("constructor", "Building it prints, writes, downloads and draws nothing.", constructor),
)


# --------------------------------------------------------------------------------------------------- on a toy task


def applicable(subject: Subject) -> None:
    """Raise :class:`Skipped` where the plugin does not apply to the toy, or an optional package is missing."""
    for package in subject.cls.requires:
        if importlib.util.find_spec(package.partition(".")[0]) is None:
            raise Skipped(f"needs the optional package {package}, which is not installed")
    reason = subject.plugin.not_applicable(subject.world.info)
    if reason is not None:
        raise Skipped(f"not applicable: {reason}")


def _first(subject: Subject) -> Act:
    """The ordinary exercise, if it worked; otherwise the rule cannot be judged (the check ``works`` says why)."""
    act = subject.first()
    if act.observation.error is not None:
        raise Skipped("it does not work (see the check 'works')")
    return act


def works(subject: Subject) -> None:
    """It runs, and its answer has the shape that the contract states."""
    answer = subject.first().observation.value()
    subject.family.valid(subject, answer, subject.ordinary())


def repeatable(subject: Subject) -> None:
    """The same seed gives the same answer, whatever other code did with the global generators."""
    first, again = _first(subject), subject.again().observation.value()
    demand(
        first.observation.value().facts == again.facts,
        "the same seed gives another answer after other code has used the global generators; draw from context.rng "
        "and context.torch_generator alone",
    )


def generators(subject: Subject) -> None:
    """The global generators are as they were."""
    changed = subject.first().observation.generators
    demand(not changed, f"it changes the global generators of {', '.join(changed)}; draw from context.rng instead")


def inputs(subject: Subject) -> None:
    """What was handed over is as it was."""
    changed = subject.first().changed
    demand(not changed, f"it changes {', '.join(changed)}; work on copies (white_box.copy())")


def quiet(subject: Subject) -> None:
    """Nothing is printed."""
    printed = subject.first().observation.printed
    demand(not printed, f"it prints: {printed[:200]!r}; use context.log or context.progress")


def scratch(subject: Subject) -> None:
    """No file outside the scratch folder is written."""
    written = subject.first().observation.written
    demand(not written, f"it writes outside context.scratch: {', '.join(written[:5])}")


def offline(subject: Subject) -> None:
    """No network."""
    contacted = subject.first().observation.contacted
    demand(not contacted, f"it uses the network: {', '.join(contacted[:5])}")


def truth(subject: Subject) -> None:
    """A defense knows what it declares; no way leads from what it holds to the truth."""
    act = subject.first()
    demand(not act.asked, f"it asks for what its needs do not declare: {', '.join(act.asked)}")
    peeked = ", ".join(dict.fromkeys(act.observation.peeked))
    demand(not peeked, f"it looks past what it was handed, into the interpreter: {peeked}")
    demand(act.truth is None, f"the truth about the poison can be reached from what it was handed: {act.truth}")
    if not isinstance(subject.plugin, Defense):
        return
    demand(
        subject.cls.name in CONTROLS or not subject.plugin.needs.truth,
        "it declares that it needs the truth, which only the control 'oracle' may",
    )


def unusual(subject: Subject) -> None:
    """Tiny, empty, one-token, unicode and one-class data is answered, or refused with a clear message where it may be."""
    _first(subject)
    variations = subject.family.variations(subject)
    if not variations:
        raise Skipped("nothing is handed to it that could be unusual")
    for name, variation in variations.items():
        observation = subject.act(variation.setting).observation
        error = observation.error
        if error is not None:
            refused = isinstance(error, BenchError) and variation.refusable
            demand(refused, f"on {name}: raised {said(error, subject.sources)}{_may_refuse(variation)}")
            continue
        try:
            subject.family.valid(subject, observation.value(), variation.setting)
        except AssertionError as broken:
            demand(False, f"on {name}: {broken}{_may_refuse(variation)}")


def _may_refuse(variation: Variation) -> str:
    """What else the plugin could do with data that it cannot answer."""
    return (
        "; answer, or refuse with a DataError (bench.errors) that says what is missing" if variation.refusable else ""
    )


TOY_CHECKS = (
    Check("works", "It runs on the toy, and its answer has the contract's shape.", works),
    Check("repeatable", "Same seed, same answer, under disturbed global generators.", repeatable),
    Check("generators", "The global generators are left as they were.", generators),
    Check("inputs", "Inputs, and the model that came in, are left as they were.", inputs),
    Check("quiet", "It prints nothing.", quiet),
    Check("scratch", "It writes no file outside its scratch folder.", scratch),
    Check("offline", "It does not use the network.", offline),
    Check("truth", "It asks for nothing undeclared, and cannot reach the truth.", truth),
    Check("unusual data", "Tiny, empty, one-token, unicode and one-class data does no harm.", unusual),
)
