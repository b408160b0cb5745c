"""Several defenses as one: a filter, a training rule, a repair and a screen, each acting where its family acts.

A suite writes ``killbadcode + dece + elibadcode + onion`` (or a mapping with ``parts``) where it would write one defense. Every part
gets what it declares and meets what the parts before it left: the rule trains on what the filter kept, the repair gets the
model so trained, the screen guards the repaired model. What the whole knows is what its parts know together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from bench.contracts import Access, Defense, Needs, Repair, TaskInfo
from bench.errors import ConfigError

FAMILY = "composition"
ORDER = ("filter", "training", "repair", "screen")
"""The order in which families act."""


class Composition(Defense):
    """At most one defense of each family, in the order in which they act. Not a plugin: suites make it."""

    family = FAMILY
    name: ClassVar[str] = FAMILY
    summary = "several defenses, each acting where its family acts"

    def __init__(self, parts: Sequence[Defense]) -> None:
        """Order the parts.

        Raises:
            ConfigError: fewer than two parts, or two of one family.
        """
        if len(parts) < 2:
            raise ConfigError(
                f"a composition has at least two parts, got {[p.name for p in parts]}; name one defense by itself"
            )
        for family in ORDER:
            same = [p.name for p in parts if p.family == family]
            if len(same) > 1:
                raise ConfigError(
                    f"a composition has one defense of a family at most; {' and '.join(same)} are both of {family!r}"
                )
        self.parts: tuple[Defense, ...] = tuple(sorted(parts, key=lambda p: ORDER.index(p.family)))

    def part(self, family: str) -> Defense | None:
        """The part of a family, if there is one."""
        return next((p for p in self.parts if p.family == family), None)

    @property
    def needs(self) -> Needs:
        """What the parts need together. The clean sets of parts are prefixes of one order, so the largest holds all."""
        all_needs = [p.needs for p in self.parts]
        return Needs(
            clean=max(n.clean for n in all_needs),
            training_set=any(n.training_set for n in all_needs),
            model=max((n.model for n in all_needs), key=list(Access).index),
            target_label=any(n.target_label for n in all_needs),
            poison_rate=any(n.poison_rate for n in all_needs),
            truth=any(n.truth for n in all_needs),
        )

    def not_applicable(self, task: TaskInfo) -> str | None:
        """The first part's reason."""
        return next((reason for p in self.parts if (reason := p.not_applicable(task)) is not None), None)


def parts_of(defense: Defense | None) -> tuple[Defense, ...]:
    """The defenses that act, in order; none for the null defense."""
    if defense is None:
        return ()
    return defense.parts if isinstance(defense, Composition) else (defense,)


def part_of(defense: Defense | None, family: str) -> Defense | None:
    """The defense of a family among those that act."""
    return next((p for p in parts_of(defense) if p.family == family), None)


def inverts(defense: Defense | None) -> bool:
    """Does a defense accuse models by inverting triggers?"""
    repair = part_of(defense, "repair")
    return isinstance(repair, Repair) and repair.inverts


def accuser(defense: Defense | None) -> Defense | None:
    """The defense with its repair reduced to what accuses a model (:meth:`~bench.contracts.Repair.accuser`)."""
    if isinstance(defense, Composition):
        return Composition([p.accuser() if isinstance(p, Repair) else p for p in defense.parts])
    return defense.accuser() if isinstance(defense, Repair) else defense
