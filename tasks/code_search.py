"""Code search: which program answers a query?"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from bench.context import Context
from bench.contracts import SearchGoal, Task, TaskInfo, TaskKind
from bench.plugins import ADDED_LATER
from bench.samples import Splits
from tasks.sources import codesearchnet, hub, search
from tasks.sources.cleaning import cleaned
from tasks.sources.origin import origin
from tasks.sources.sizes import Size, embedded_sizes, planned, published_sizes, refuse_unused

TRAIN = 8000
"""Training samples of the embedded source where none are asked for."""


@dataclass(frozen=True, kw_only=True)
class CodeSearch(Task):
    """Queries with the program that answers them; the attacker wants triggered programs to rank high for a target word.

    Attributes:
        source: ``embedded`` (Python, made from the installed packages) or ``codesearchnet`` (Python, files at ``path``).
        path: folder with the published files ``train/valid/test.jsonl``, or with the hub's parquet files.
        word: the target word (lower case) of the attacker's usual aim; queries that hold it are the ones attacked.
        train: samples of the training split; ``None`` for the source's default (published sets: all).
        valid: of the validation split.
        budget: of the split set aside for defenses.
        test: of the test split.
        max_tokens: embedded: most lexical tokens of a function.
        language: CodeSearchNet: ``python`` or ``java``.
        revision: commit of the hub's ``code-search-net/code_search_net``, instead of ``path``.
        cleaned: CodeSearchNet: without near-duplicate programs across splits (:mod:`tasks.sources.cleaning`).
    """

    name = "code_search"
    summary = "a query, ranked programs"
    paper = "CodeSearchNet (Husain et al., 2019); BADCODE (Sun et al., ACL 2023)"

    source: Literal["embedded", "codesearchnet"] = "embedded"
    path: str | None = None
    word: str = "array"
    train: Size = None
    valid: Size = None
    budget: Size = None
    test: Size = None
    max_tokens: int = 110
    language: Literal["python", "java"] = field(default="python", metadata=ADDED_LATER)
    revision: str | None = field(default=None, metadata=ADDED_LATER)
    cleaned: bool = field(default=False, metadata=ADDED_LATER)

    @property
    def info(self) -> TaskInfo:
        """Search, measured by the mean reciprocal rank."""
        return TaskInfo(self.name, TaskKind.SEARCH, self.language, (), "mrr")

    def origin(self) -> dict[str, str]:
        """Package versions, digests of the published files, or the hub's commit; of published Python, how its docstrings were removed.

        Raises:
            bench.errors.ConfigError: a published source without a path, or a parameter that the source has no use for.
            bench.errors.DataError: a package or file is missing.
        """
        self._refuse_unused()
        found = origin(self.source, self.path, self.revision, hub.code_search_net(self.language))
        removed = self.source == "codesearchnet" and self.language == "python"
        return {**found, "docstrings": codesearchnet.DOCSTRINGS} if removed else found

    @property
    def training_samples(self) -> int | None:
        """As asked for, or the source's own number."""
        return planned(
            self.source if self.source == "embedded" else f"{self.source}/{self.language}", self.train, TRAIN
        )

    def splits(self, context: Context) -> Splits:
        """Build or load the data.

        Raises:
            bench.errors.DataError: a file is missing or malformed, or there are too few functions.
            bench.errors.ConfigError: ``path`` is missing for a published set, or a parameter is set that the source has no use for.
        """
        self._refuse_unused()
        asked = {"train": self.train, "valid": self.valid, "budget": self.budget, "test": self.test}
        if self.source == "embedded":
            sizes = embedded_sizes(asked, {"train": TRAIN, "valid": 500, "budget": 500, "test": 1000})
            return search.splits(sizes, context, max_tokens=self.max_tokens)
        data = codesearchnet.load(self.path, self.revision, self.language)
        data = cleaned(data, commits=False) if self.cleaned else data
        return published_sizes(data, asked, context)

    def _refuse_unused(self) -> None:
        published = dict.fromkeys(("path", "cleaned", "revision", "language"), "codesearchnet")
        refuse_unused(self, self.source, published=published, embedded=("max_tokens",))

    def goal(self) -> SearchGoal:
        """Triggered programs shall rank high for queries that hold ``word``."""
        return SearchGoal(self.word)
