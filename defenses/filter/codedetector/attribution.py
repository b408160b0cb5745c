"""Step 1: which tokens decide the model's answers, by integrated gradients."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from bench.context import Context
from bench.models.handles import WhiteBox
from bench.models.tokens import Tokens, batches, pad
from defenses.filter.codedetector.rows import Row


def integrated_gradients(model: WhiteBox, sides: Sequence[Tokens], labels: Tensor, steps: int) -> list[Tensor]:
    """How much each token adds to the log-odds of a sample's label, on the way from empty programs to the real ones.

    Source: Sundararajan, Taly and Yan, "Axiomatic Attribution for Deep Networks", ICML 2017, equation 3, by the midpoint rule. The
    baseline is the padding token's embedding in the place of every token. Added up over the tokens of a sample this gives the log-odds
    at the program less those at the baseline, the better the more steps.

    Args:
        model: in evaluation mode.
        sides: padded token ids, one batch a side.
        labels: long, shape (n,).
        steps: points on the way.

    Returns:
        for each side, shape (n, L); 0 on padding.
    """
    network = model.network
    with torch.no_grad():
        real = [network.embedding(side.ids) for side in sides]
        empty = [network.embedding(torch.full_like(side.ids, model.pad_id)) for side in sides]
    sums = [torch.zeros_like(rows) for rows in real]
    for step in range(steps):
        share = (step + 0.5) / steps
        points = [(low + share * (high - low)).requires_grad_() for low, high in zip(empty, real, strict=True)]
        inputs = [Tokens(side.ids, side.mask, point) for side, point in zip(sides, points, strict=True)]
        odds = log_odds(network.logits(*inputs), labels).sum()
        for total, slope in zip(sums, torch.autograd.grad(odds, points), strict=True):
            total += slope
        tokens = sum(side.ids.numel() for side in sides)
        model.cost.forward(tokens)
        model.cost.backward(tokens)
    return [
        ((high - low) * total / steps).sum(dim=-1) * side.mask
        for side, low, high, total in zip(sides, empty, real, sums, strict=True)
    ]


def log_odds(logits: Tensor, labels: Tensor) -> Tensor:
    """log P(label) - log P(another class), shape (n,). A lone class has its own logit."""
    own = logits.gather(1, labels[:, None])[:, 0]
    if logits.shape[1] == 1:
        return own
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return own - others.logsumexp(dim=1)


def influential(
    model: WhiteBox, sides: Sequence[Sequence[Row]], labels: Sequence[int], steps: int, from_each: int, context: Context
) -> dict[int, float]:
    """Ranking weight of each token that is among the ``from_each`` most influential of a sample: mean influence times log count.

    A token's influence on a sample is the largest among its places. Tokens that speak against the label do not count.
    """
    special = {*model.tokenizer.all_special_ids, model.pad_id}
    sums: dict[int, float] = defaultdict(float)
    counts: dict[int, int] = defaultdict(int)
    lengths = [sum(len(rows[i]) for rows in sides) for i in range(len(labels))]
    # A backward pass keeps every layer's activations: a quarter of what inference may hold.
    cuts = list(batches(lengths, max(1, model.settings.batch_tokens // 4)))
    for index in context.progress(cuts, "codedetector: integrated gradients"):
        padded = [pad([rows[i] for i in index], model.pad_id).to(model.device) for rows in sides]
        of_batch = torch.tensor([labels[i] for i in index], device=model.device)
        values = [v.cpu().tolist() for v in integrated_gradients(model, padded, of_batch, steps)]
        for at, i in enumerate(index):
            best: dict[int, float] = {}
            for rows, value in zip(sides, values, strict=True):
                for token, influence in zip(rows[i], value[at], strict=False):
                    if token not in special and influence > best.get(token, 0.0):
                        best[token] = influence
            for token in sorted(best, key=lambda t: (-best[t], t))[:from_each]:
                sums[token] += best[token]
                counts[token] += 1
    return {token: sums[token] / counts[token] * float(np.log1p(counts[token])) for token in sums}
