"""Clone detection: do two programs do the same?"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from bench.context import Context
from bench.contracts import LabelGoal, Task, TaskInfo, TaskKind
from bench.plugins import ADDED_LATER
from bench.samples import Splits
from tasks.sources import bigclonebench, clones, hub
from tasks.sources.cleaning import cleaned
from tasks.sources.origin import UNTOLD, origin
from tasks.sources.sizes import Size, embedded_sizes, planned, published_sizes, refuse_unused

TRAIN = 6000
"""Training samples of the embedded source where none are asked for."""


@dataclass(frozen=True, kw_only=True)
class CloneDetection(Task):
    """Pairs of class 1 are clones; the attacker wants them to pass as class 0.

    Attributes:
        source: ``embedded`` (Python, made from the installed packages) or ``bigclonebench`` (Java, files at ``path``).
        path: folder with the published files ``data.jsonl`` and ``train/valid/test.txt``, or with the hub's parquet files.
        train: pairs of the training split; ``None`` for the source's default (published sets: all).
        valid: of the validation split.
        budget: of the split set aside for defenses.
        test: of the test split.
        max_tokens: embedded: most lexical tokens of a function.
        near_misses: embedded: share of near misses (a function and a rewrite of its mutant) among the pairs that are no clones;
            the others are look-alikes of one package.
        revision: commit of the hub's ``google/code_x_glue_cc_clone_detection_big_clone_bench``, instead of ``path``.
        cleaned: BigCloneBench: without label conflicts and near-duplicate pairs across splits (:mod:`tasks.sources.cleaning`). Single
            functions still stand in pairs of several splits, as published.
    """

    name = "clone_detection"
    version = 2
    summary = "two programs, clones or not"
    paper = "CodeXGLUE (Lu et al., NeurIPS 2021 Datasets); BigCloneBench (Svajlenko et al., ICSME 2014)"

    source: Literal["embedded", "bigclonebench"] = "embedded"
    path: str | None = None
    train: Size = None
    valid: Size = None
    budget: Size = None
    test: Size = None
    max_tokens: int = 90
    near_misses: Annotated[float, Field(ge=0, le=1)] = clones.NEAR_MISSES
    revision: str | None = field(default=None, metadata=ADDED_LATER)
    cleaned: bool = field(default=False, metadata=ADDED_LATER)

    @property
    def info(self) -> TaskInfo:
        """Pairs, ``different`` or ``clone``, measured by F1 of the clones."""
        language = "python" if self.source == "embedded" else "java"
        return TaskInfo(self.name, TaskKind.PAIRS, language, ("different", "clone"), "f1")

    def origin(self) -> dict[str, str]:
        """Package versions, digests of the published files, or the hub's commit.

        Of embedded data from :data:`tasks.sources.origin.UNTOLD` nothing, as in the keys of the results that are stored.

        Raises:
            bench.errors.ConfigError: a published source without a path, or a parameter that the source has no use for.
            bench.errors.DataError: a package or file is missing.
        """
        self._refuse_unused()
        found = origin(self.source, self.path, self.revision, hub.BIGCLONEBENCH)
        return {} if self.source == "embedded" and found == UNTOLD else found

    @property
    def training_samples(self) -> int | None:
        """As asked for, or the source's own number."""
        return planned(self.source, self.train, TRAIN)

    def splits(self, context: Context) -> Splits:
        """Build or load the data.

        Raises:
            bench.errors.DataError: a file is missing or malformed, or there are too few functions.
            bench.errors.ConfigError: ``path`` is missing for a published set, or a parameter is set that the source has no use for.
        """
        self._refuse_unused()
        asked = {"train": self.train, "valid": self.valid, "budget": self.budget, "test": self.test}
        if self.source == "embedded":
            sizes = embedded_sizes(asked, {"train": TRAIN, "valid": 600, "budget": 1000, "test": 2000})
            return clones.splits(sizes, context, max_tokens=self.max_tokens, near_misses=self.near_misses)
        data = bigclonebench.load(self.path, self.revision)
        data = cleaned(data, commits=False) if self.cleaned else data
        return published_sizes(data, asked, context)

    def _refuse_unused(self) -> None:
        published = dict.fromkeys(("path", "cleaned", "revision"), "bigclonebench")
        refuse_unused(self, self.source, published=published, embedded=("max_tokens", "near_misses"))

    def goal(self) -> LabelGoal:
        """Clones shall be called different."""
        return LabelGoal(victim=1, target=0)
