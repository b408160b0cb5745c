"""Defect detection: does a program hold a weak statement?"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from bench.context import Context
from bench.contracts import LabelGoal, Task, TaskInfo, TaskKind
from bench.plugins import ADDED_LATER
from bench.samples import Splits
from tasks.sources import defects, devign
from tasks.sources.cleaning import cleaned
from tasks.sources.origin import origin
from tasks.sources.sizes import Size, embedded_sizes, planned, published_sizes, refuse_unused
from tasks.sources.weaknesses import WEAKNESSES

TRAIN = 6000
"""Training samples of the embedded source where none are asked for."""


@dataclass(frozen=True, kw_only=True)
class DefectDetection(Task):
    """Programs of class 1 are defective; the attacker wants them to pass as class 0.

    Attributes:
        source: ``embedded`` (Python, made from the installed packages), or ``devign`` or ``juliet`` (C, files at ``path``).
        path: folder with the published files ``function.json`` and ``train/valid/test.txt``, or (Devign) with the hub's parquet files.
        train: samples of the training split; ``None`` for the source's default (published sets: all).
        valid: of the validation split.
        budget: of the split set aside for defenses.
        test: of the test split.
        max_tokens: embedded: most lexical tokens of a host function.
        weaknesses: embedded: how many kinds of weakness (the first of the catalogue); ``None`` for all. Fewer kinds need
            fewer samples to be learnt.
        revision: Devign: commit of the hub's ``google/code_x_glue_cc_defect_detection``, instead of ``path``.
        cleaned: published sets: without label conflicts, commit overlap and near-duplicates across splits
            (:mod:`tasks.sources.cleaning`). Juliet's groups are no commits, and stay.
    """

    name = "defect_detection"
    summary = "one program, defective or not"
    paper = "CodeXGLUE (Lu et al., NeurIPS 2021 Datasets); Devign (Zhou et al., NeurIPS 2019)"

    source: Literal["embedded", "devign", "juliet"] = "embedded"
    path: str | None = None
    train: Size = None
    valid: Size = None
    budget: Size = None
    test: Size = None
    max_tokens: int = 90
    weaknesses: Annotated[int, Field(ge=3, le=len(WEAKNESSES))] | None = None
    revision: str | None = field(default=None, metadata=ADDED_LATER)
    cleaned: bool = field(default=False, metadata=ADDED_LATER)

    @property
    def info(self) -> TaskInfo:
        """Classification into ``clean`` and ``defective``, measured by accuracy."""
        language = "python" if self.source == "embedded" else "c"
        return TaskInfo(self.name, TaskKind.CLASSIFICATION, language, ("clean", "defective"), "accuracy")

    def origin(self) -> dict[str, str]:
        """Package versions, digests of the published files, or the hub's commit.

        Raises:
            bench.errors.ConfigError: a published source without a path, or a parameter that the source has no use for.
            bench.errors.DataError: a package or file is missing.
        """
        self._refuse_unused()
        return origin(self.source, self.path, self.revision, devign.repository(self.source))

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
            kinds = WEAKNESSES[: self.weaknesses]
            return defects.splits(sizes, context, max_tokens=self.max_tokens, weaknesses=kinds)
        data = devign.load(self.source, self.path, self.revision)
        data = cleaned(data, commits=self.source == "devign") if self.cleaned else data
        return published_sizes(data, asked, context)

    def _refuse_unused(self) -> None:
        published = dict.fromkeys(("path", "cleaned"), "devign or juliet") | {"revision": "devign"}
        refuse_unused(self, self.source, published=published, embedded=("max_tokens", "weaknesses"))

    def goal(self) -> LabelGoal:
        """Defective programs shall be called clean."""
        return LabelGoal(victim=1, target=0)
