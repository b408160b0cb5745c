"""The victim's representations of samples, as the filters that look into the model read them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bench.contracts import TaskInfo, TaskKind
from bench.errors import ConfigError, ModelError
from bench.models.handles import WhiteBox
from bench.samples import Sample

Pooling = Literal["head", "mean", "first"]
"""How token vectors become one: as for the head (pairs: both programs joined), the mean, or the first token's (pairs: of the
first program)."""


def representations(
    model: WhiteBox, samples: Sequence[Sample], task: TaskInfo, layer: int, pooling: Pooling, asked_by: str
) -> NDArray[np.float32]:
    """Finite representations (n, d) of samples, in their order; of unit length in code search.

    A model of code search compares the cosines of its vectors, so their lengths are nothing it was taught: left in, what is furthest
    from the mean could be a program whose vector is merely long.

    Args:
        model: the victim.
        samples: at least one.
        task: what the victim does.
        layer: hidden layer: 0 for the embedding output, -1 for the last.
        pooling: see :data:`Pooling`.
        asked_by: the filter's name, for messages.

    Raises:
        ConfigError: the model has no such layer.
        ModelError: a representation is not finite (training diverged).
    """
    try:
        found = model.features(samples, layer=layer, pooling=pooling)
    except IndexError as error:
        raise ConfigError(
            f"{asked_by}: the model has no hidden layer {layer}; 0 is the embedding output, -1 the last layer"
        ) from error
    if not np.isfinite(found).all():
        raise ModelError(
            f"{asked_by}: the victim's representations of its training set are not finite. "
            "Its training has diverged; lower the learning rate of the suite's training settings."
        )
    return unit_length(found) if task.kind is TaskKind.SEARCH else found


def unit_length(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows (n, d) at length 1, as :meth:`~bench.models.handles.BlackBox.embed_programs` gives them; a row of zeros stays one."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(lengths, 1e-12), dtype=np.float32)
