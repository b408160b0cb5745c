"""Thresholds from clean data at a stated false-positive rate: conformal quantiles, never tuned on poisoned or test data."""

from __future__ import annotations

import math
from collections.abc import Sequence


def conformal_threshold(scores: Sequence[float], rate: float) -> float:
    """The value that a new score of the same kind exceeds with probability at most ``rate``; infinite with too few scores.

    To vouch for a rate of 5 % takes 19 scores, for 1 % 99.

    One threshold stands for all of a model's answers, as published for the screens that use it (oseql, codepurify, attdef, rap),
    and holds its rate over all clean inputs together. Where clean inputs of one answer are far more fragile than those of the other,
    nearly all false positives are of that answer, and a trigger that aims at the other has to stand out among them.
    """
    rank = math.ceil((len(scores) + 1) * (1 - rate) - 1e-9)
    return sorted(scores)[rank - 1] if rank <= len(scores) else math.inf


def fold_numbers(groups: Sequence[str], folds: int) -> list[int]:
    """The fold of each sample: whole groups together, as test inputs come from groups of their own.

    With fewer groups than folds the samples are dealt out one by one.
    """
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    if len(numbers) < folds:
        return [index % folds for index in range(len(groups))]
    return [numbers[group] % folds for group in groups]
