"""Names that a clean surrogate reads as what somebody wants: one targeted gradient step a program.

Made for the attack ``adaptive`` (Yang et al., AFRAIDOOR, TSE 2024), and used by the policy ``weaken: gradient``.
"""

from bench.adversarial.crafting import (
    HIDDEN_NAME,
    SITES,
    AdversarialNames,
    Reading,
    Vocabulary,
    local_names,
    nameable,
    read,
)
from bench.adversarial.surrogate import Aim, TowardsClass, TowardsQuery, train

__all__ = [
    "HIDDEN_NAME",
    "SITES",
    "AdversarialNames",
    "Aim",
    "Reading",
    "TowardsClass",
    "TowardsQuery",
    "Vocabulary",
    "local_names",
    "nameable",
    "read",
    "train",
]
