"""Clone detection: do two programs do the same?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from bench.context import Context
from bench.contracts import LabelGoal, Task, TaskInfo, TaskKind
from bench.samples import Splits
from tasks.sources import bigclonebench, clones
from tasks.sources.sizes import Size, embedded_sizes, published_sizes


@dataclass(frozen=True, kw_only=True)
class CloneDetection(Task):
    """Pairs of class 1 are clones; the attacker wants them to pass as class 0.

    Attributes:
        source: ``embedded`` (Python, made from the installed packages) or ``bigclonebench`` (Java, files at ``path``).
        path: folder with the published files ``data.jsonl`` and ``train/valid/test.txt``.
        train: pairs of the training split; ``None`` for the source's default (published sets: all).
        valid: of the validation split.
        budget: of the split set aside for defenses.
        test: of the test split.
        max_tokens: embedded: most lexical tokens of a function.
        near_misses: embedded: share of near misses (a function and a rewrite of its mutant) among the pairs that are no clones;
            the others are look-alikes of one package.
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

    @property
    def info(self) -> TaskInfo:
        """Pairs, ``different`` or ``clone``, measured by F1 of the clones."""
        language = "python" if self.source == "embedded" else "java"
        return TaskInfo(self.name, TaskKind.PAIRS, language, ("different", "clone"), "f1")

    def splits(self, context: Context) -> Splits:
        """Build or load the data.

        Raises:
            bench.errors.DataError: a file is missing or malformed, or there are too few functions.
            bench.errors.ConfigError: ``path`` is missing for a published set.
        """
        asked = {"train": self.train, "valid": self.valid, "budget": self.budget, "test": self.test}
        if self.source == "embedded":
            sizes = embedded_sizes(asked, {"train": 6000, "valid": 600, "budget": 1000, "test": 2000})
            return clones.splits(sizes, context, max_tokens=self.max_tokens, near_misses=self.near_misses)
        return published_sizes(bigclonebench.load(self.path), asked, context)

    def goal(self) -> LabelGoal:
        """Clones shall be called different."""
        return LabelGoal(victim=1, target=0)
