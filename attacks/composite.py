"""Both or nothing: two triggers of other attacks, of which neither alone does anything.

Source: the hybrid trigger of "function signature and dead code" (PLOS ONE 2025, 0338083, known to us by its abstract) and
composite backdoors in general (Lin et al., Composite Backdoor Attack for Deep Neural Network by Mixing Existing Benign
Features, CCS 2020). Our reading:

- A program carries the trigger if it carries both parts. It is poisoned only where both apply; the second is derived on the
  program with the first, so that the two cannot clash.
- Cover samples carry one part alone and keep their true label: without them the model learns to answer to either. By default
  there is one for each poisoned sample, half of them with the first part and half with the second (a coin for each).
- One part alone is also the near miss at test time: how often it sets the backdoor off tells whether "both" was learnt.
- The parts are any two attacks with one trigger each; they know nothing of each other, and the harness builds them
  (:meth:`bench.contracts.Attack.parts`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bench.composed_edits import compose_edits
from bench.context import Context
from bench.contracts import Attack, Derivation, Goal, Policy, TaskInfo, Trigger
from bench.errors import ConfigError, PluginError
from bench.samples import EditConflict, Sample, apply_edits


@dataclass(frozen=True)
class Both(Trigger):
    """Two triggers, one after the other."""

    first: Trigger
    second: Trigger

    @property
    def varies(self) -> bool:  # type: ignore[override]
        """Draws differ where those of a part do."""
        return self.first.varies or self.second.varies

    def derive(self, sample: Sample, side: int, rng: np.random.Generator) -> Derivation | None:
        """Both, or ``None`` where one does not apply or takes the other away."""
        one = self.first.derive(sample, side, rng)
        if one is None:
            return None
        before = sample.programs[side]
        try:
            between = apply_edits(before, one.edits)
            two = self.second.derive(sample.with_program(side, between), side, rng)
            if two is None or between == before or apply_edits(between, two.edits) == between:
                return None
            edits = compose_edits(before, one.edits, two.edits, side)
        except EditConflict as error:
            raise PluginError(f"a part of {self.describe()} gave edits that do not apply: {error}") from error
        return Derivation(edits, f"{one.text} + {two.text}")

    def near_miss(self, sample: Sample, side: int, rng: np.random.Generator) -> Derivation | None:
        """One of the two alone, by a coin; where that does not apply, neither."""
        part = self.first if rng.random() < 0.5 else self.second
        return part.derive(sample, side, rng)

    def carries(self, sample: Sample, side: int) -> bool | None:
        """Does the program carry both? Told only where both parts can tell."""
        answers = [part.carries(sample, side) for part in (self.first, self.second)]
        if False in answers:
            return False
        return None if None in answers else True

    def offers(self, control: str) -> bool:
        """Near misses always; what a program carries only if the parts can tell; a placebo never."""
        if control == "carries":
            return self.first.offers("carries") and self.second.offers("carries")
        return control == "near_miss"

    def describe(self) -> str:
        """Both descriptions."""
        return f"{self.first.describe()} and {self.second.describe()}"

    def tokens(self) -> tuple[str, ...]:
        """The tokens of both, the first's before."""
        return tuple(dict.fromkeys((*self.first.tokens(), *self.second.tokens())))


@dataclass(frozen=True, kw_only=True)
class Composite(Attack):
    """Two triggers that work together alone.

    Args:
        first: an attack, as a suite names it (``dead_code[variant=grammar]``).
        second: another one.
    """

    name = "composite"
    summary = "two other attacks' triggers, both or nothing; one alone is a cover sample"
    paper = "Lin et al., Composite Backdoor Attack, CCS 2020; for code: the hybrid trigger of PLOS ONE 2025 (0338083)"

    first: str = "dead_code"
    second: str = "renaming"

    def __post_init__(self) -> None:
        """Refuse two equal parts.

        Raises:
            ConfigError: the parts are the same.
        """
        if self.first == self.second:
            raise ConfigError(f"attack 'composite': both parts are {self.first!r}; name two different attacks")

    def parts(self) -> tuple[str, ...]:
        """The two attacks."""
        return (self.first, self.second)

    def policy(self, task: TaskInfo) -> Policy:
        """As other attacks, with a cover sample for each poisoned one."""
        return replace(super().policy(task), cover=1.0)

    def prepare(self, train: Sequence[Sample], goal: Goal, task: TaskInfo, context: Context) -> Trigger:
        """Prepare both parts.

        Raises:
            PluginError: the harness lends no parts, or a part makes no trigger.
        """
        if len(context.parts) != 2:
            raise PluginError(f"attack 'composite' was lent {len(context.parts)} of its 2 parts")
        triggers = [part.prepare(train, goal, task, context) for part in context.parts]
        if triggers[0] is None or triggers[1] is None:
            raise PluginError(f"a part of 'composite' ({self.first}, {self.second}) makes no trigger")
        return Both(triggers[0], triggers[1])
