"""What launchers of parallel programs leave in the environment, out of the way of a training: it runs in one process, in its stage's type.

The training loop of ``transformers`` asks ``accelerate`` how many processes share the work, on which device and in which type, and
``accelerate`` asks the environment: that of ``accelerate launch``, of ``torchrun``, or of an MPI, as which ``srun`` shows itself to what
it starts (Ray's workers, for one). A result's key says what a stage computes in, and nothing of where it was started from.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

PREFIXES: Final = ("ACCELERATE_", "OMPI_COMM_WORLD_", "MV2_COMM_WORLD_", "PMI_", "MPI_LOCAL", "KUBEFLOW_")
"""``accelerate launch``; Open MPI, MVAPICH, ``srun`` and Hydra, Intel MPI; a cluster's service that a training would report to."""
NAMES: Final = frozenset({"RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "FORK_LAUNCHED"})
"""``torchrun``, and ``accelerate`` in a notebook. What else is read (``FSDP_…``, ``MEGATRON_LM_…``, ``PARALLELISM_CONFIG_…``,
``MASTER_ADDR``) is asked for only where one of these says so."""


@contextmanager
def launched_by_nobody() -> Iterator[None]:
    """In the block the environment tells of no launcher, and of no settings for ``accelerate``; it comes back as it was.

    ``accelerate`` keeps what it once read for the whole process. ``TrainingArguments`` makes it forget that: make them in the block.
    """
    before = _told()
    for name in before:
        del os.environ[name]
    try:
        yield
    finally:
        for name in _told():  # a training may leave some of its own
            del os.environ[name]
        os.environ.update(before)


def _told() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name in NAMES or name.startswith(PREFIXES)}
