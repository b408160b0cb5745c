"""Weakening a clean-label poison: names that speak for the other class, so that the trigger is what tells the label.

A clean-label poison is a target-class program with the trigger and its true label. The model can call it the target class
without ever looking at the trigger. Turner et al. (Label-Consistent Backdoor Attacks, 2019) therefore first perturb such
inputs adversarially, against a clean model, until their own features no longer suffice. For programs the perturbation is a
rename of local names, which keeps behaviour.

Two clean models can be perturbed against:

``names``: a linear one, Bernoulli naive Bayes over the local names of the clean training split. Against a linear model the
best rename is known in closed form (the names with the largest log-odds for the other class), so no gradient is needed. It
sees names alone, and what it calls weakened a larger model may still recognise.

``gradient``: a neural one, a ``tiny`` model trained on the clean training split at the poison seed (never the victim; it shares
no seed with it), and for each program one targeted gradient step towards the victim class at all of its local names, as the
attack ``adaptive`` takes it towards the target (:mod:`bench.adversarial`). One step of a surrogate, not Turner's many steps
within a norm: names have no norm. Its training and its passes are counted with the poison stage.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.naive_bayes import BernoulliNB

from bench.context import Context
from bench.contracts import Derivation, LabelGoal, Policy, TaskInfo
from bench.errors import ConfigError
from bench.languages import Program, RenameRefused, parse
from bench.samples import Edit, Sample

SUPPORT = 3
"""A name must stand in this many training programs to be used: rarer ones would be triggers of their own."""
CHOICE = 50
"""From how many of the best names each program draws: always the same few would be a trigger of their own."""
LEAST_ODDS = math.log(2)
"""A name speaks for the victim class where it is at least twice as common there."""
SURROGATE, SURROGATE_WINDOW, SURROGATE_EPOCHS = "tiny", 256, 5
"""What ``gradient`` trains: as attack ``adaptive`` by default."""

Weakener = Callable[[Sample, int, np.random.Generator], Derivation | None]


def weakener(
    train: Sequence[Sample], goal: LabelGoal, policy: Policy, task: TaskInfo, context: Context
) -> Weakener | None:
    """What renames the local names of one side of a program; ``None`` where the policy asks for none.

    Raises:
        ConfigError: no name speaks for the victim class, or none is legal.
        PluginError: ``gradient``, and the context has no trainer.
    """
    if policy.weaken == "none":
        return None
    if policy.weaken == "names":
        return NameSurrogate.fit(train, goal).weaken
    from bench.adversarial import AdversarialNames, TowardsClass
    from bench.adversarial import train as train_surrogate
    from bench.models import ModelSettings  # models are loaded where one is trained: the rest of poisoning needs none

    settings = ModelSettings(window=SURROGATE_WINDOW)
    model, skill = train_surrogate(SURROGATE, task, train, settings, SURROGATE_EPOCHS, context)
    origin = f"surrogate {SURROGATE}: class {task.labels[goal.victim]!r}, {skill}"
    context.log.info("weakening against %s", origin)
    return AdversarialNames.of(model, TowardsClass(goal.victim), task.language, origin, context, "weaken").derive


@dataclass(frozen=True)
class NameSurrogate:
    """What local names tell about the class.

    Attributes:
        odds: name -> log P(name | victim class) - log P(name | target class); names with :data:`SUPPORT` alone.
        pool: the :data:`CHOICE` names that speak most for the victim class (:data:`LEAST_ODDS`), best first.
    """

    odds: dict[str, float]
    pool: tuple[str, ...]

    @classmethod
    def fit(cls, train: Sequence[Sample], goal: LabelGoal) -> NameSurrogate:
        """Fit on the clean training split.

        Raises:
            ConfigError: no name speaks for the victim class.
        """
        samples = [s for s in train if s.label in (goal.victim, goal.target)]
        vectorizer = CountVectorizer(analyzer=local_names, binary=True, min_df=SUPPORT)
        try:
            seen = vectorizer.fit_transform(samples)
        except ValueError:  # there is no name at all
            seen = None
        odds: dict[str, float] = {}
        if seen is not None:
            bayes = BernoulliNB().fit(seen, np.array([s.label == goal.victim for s in samples]))
            if len(bayes.classes_) == 2:
                difference = bayes.feature_log_prob_[1] - bayes.feature_log_prob_[0]
                odds = dict(zip(vectorizer.get_feature_names_out().tolist(), difference.tolist(), strict=True))
        pool = sorted(
            (name for name, value in odds.items() if value >= LEAST_ODDS), key=lambda name: (-odds[name], name)
        )
        if not pool:
            raise ConfigError(
                f"policy, weaken: names: no local name of {len(samples)} training programs speaks for the victim class, so "
                "nothing can be weakened; use weaken: none or more data"
            )
        return cls(odds, tuple(pool[:CHOICE]))

    def score(self, names: Iterable[str]) -> float:
        """Sum of the log-odds of names: above 0 speaks for the victim class."""
        return sum(self.odds.get(name, 0.0) for name in names)

    def weaken(self, sample: Sample, side: int, rng: np.random.Generator) -> Derivation | None:
        """Edits that give every local name a new one of :attr:`pool`; ``None`` where no name gains by it."""
        program = parse(sample.language, sample.programs[side])
        taken = {leaf.text for leaf in program.leaves}
        free = [self.pool[i] for i in rng.permutation(len(self.pool)) if self.pool[i] not in taken]
        edits: list[Edit] = []
        words = []
        for name in (*program.parameters, *program.locals):
            new = next((n for n in free if self.odds[n] > self.odds.get(name.text, 0.0)), None)
            if new is None:
                continue
            try:
                edits += program.rename(name, new)
            except RenameRefused:
                continue
            free.remove(new)
            words.append(f"{name.text} -> {new}")
        if not edits:
            return None
        return Derivation(tuple(replace(edit, side=side) for edit in edits), ", ".join(words))


def local_names(sample: Sample) -> set[str]:
    """The renameable parameters and locals of a sample's programs."""
    programs: list[Program] = [parse(sample.language, text) for text in sample.programs]
    return {name.text for program in programs for name in (*program.parameters, *program.locals)}
