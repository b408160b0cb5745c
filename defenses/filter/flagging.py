"""Which suspicious tokens are flagged: no more than clean code can spare. Shared by the filters that drop whoever holds a flagged token."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from collections.abc import Set as AbstractSet
from typing import TypeVar

T = TypeVar("T", bound=Hashable)


def flag(ranking: Sequence[T], clean: Sequence[AbstractSet[T]], rate: float) -> list[T]:
    """The tokens of a ranking that clean code can spare, in its order.

    A token is passed over where, with it, more than ``rate`` of clean samples would hold a flagged token. One is added to both
    counts, as in a conformal quantile: a clean set too small to vouch for the rate (19 samples for 5 %) flags nothing.

    The rate is kept on the clean samples given. They also choose what is passed over, and a token that none of them holds costs nothing
    here: a long ranking of rare tokens can cost more of data that they have not seen (in a toy with 36 names, 60 clean samples and
    100 candidates up to 28 %, with 300 clean samples 5 %).

    Args:
        ranking: most suspicious first.
        clean: the tokens that each clean sample holds; samples that played no part in making the ranking.
        rate: share of clean samples that may be lost; 1 flags the whole ranking.
    """
    flagged: list[T] = []
    lost = 0
    left = list(clean)
    for token in ranking:
        holders = sum(token in held for held in left)
        if spares(lost + holders, len(clean), rate):
            flagged.append(token)
            lost += holders
            left = [held for held in left if token not in held]
    return flagged


def spares(lost: int, clean: int, rate: float) -> bool:
    """May ``lost`` of ``clean`` samples be lost at this rate?"""
    return lost + 1 <= rate * (clean + 1) + 1e-9
