"""Published numbers (``results/reported.yaml``), shown beside what this board reproduces."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final
from urllib.parse import quote

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from bench.errors import DataError

NAME: Final = "reported.yaml"
AVERAGE: Final = "average of the paper"
"""In place of an attack: a paper's mean over all of its own."""
NUMBERS: Final = {
    "acc": "clean",
    "accuracy": "clean",
    "f1": "clean",
    "mrr": "clean",
    "asr": "asr_published",
    "anr": "anr_published",
    "asr@1": "asr_at_1",
    "asr@5": "asr_at_5",
    "asr@10": "asr_at_10",
    "recovery": "recovery",
    "recall of detection": "filter_recall",
    "fpr of detection": "filter_clean_lost",
}
"""The metric's name in papers, lower case → the number of ours that is defined as there."""


class Reported(BaseModel):
    """One number of one paper, as printed there."""

    model_config = ConfigDict(frozen=True, extra="ignore", coerce_numbers_to_str=True)

    paper: str
    doi: str = ""
    arxiv: str = ""
    task: str
    dataset: str = ""
    model: str = ""
    attack: str
    defense: str = "none"
    metric: str
    value: str
    source: str = ""
    """Where in the paper: table, row; and the conditions under which it was measured."""

    @property
    def link(self) -> str:
        """Where the paper can be found: by its DOI, else on arXiv; empty where neither is known."""
        if self.doi:
            return f"https://doi.org/{quote(self.doi)}"
        return f"https://arxiv.org/abs/{quote(self.arxiv)}" if self.arxiv else ""

    def elsewhere(self, data: str, model: str) -> str:
        """How the setting differs from one of ours, in words; empty where it does not, or does not say what it was.

        Args:
            data: source of our data (``embedded``, ``devign``).
            model: as a suite names it.
        """
        parts = []
        if self.dataset and not _same(data, self.dataset):
            parts.append(f"on {data} data" if data else "on other data")
        if self.model and not _same(model, self.model):
            parts.append("another model")
        return ", ".join(parts)


def _same(ours: str, theirs: str) -> bool:
    """``codet5-base`` is a CodeT5, and ``codesearchnet`` the CodeSearchNet of a paper that says which language."""
    one, other = (re.sub(r"[^a-z0-9]", "", name.lower()) for name in (ours, theirs))
    return bool(one) and (other.startswith(one) or one.startswith(other))


def read_reported(path: Path) -> tuple[Reported, ...]:
    """All published numbers; none where there is no file.

    Raises:
        DataError: the file is not a list of such numbers; names the entry and the key.
    """
    if not path.is_file():
        return ()
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or []
        return tuple(TypeAdapter(list[Reported]).validate_python(content))
    except (OSError, yaml.YAMLError) as error:
        raise DataError(f"{path} cannot be read as YAML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = " → ".join(str(part) for part in first["loc"]) or "the file"
        raise DataError(
            f"{path}, entry {where}: {first['msg']}. It must be a list of numbers with {', '.join(Reported.model_fields)}."
        ) from error


def of_board(reported: Iterable[Reported], tasks: set[str], attacks: set[str], defenses: set[str]) -> list[Reported]:
    """The published numbers that this board has something to set beside; a mean over a paper's attacks has the mean over the board's."""
    attacks = attacks | {AVERAGE} if attacks - {"none"} else attacks
    return [r for r in reported if r.task in tasks and r.attack in attacks and r.defense in defenses]
