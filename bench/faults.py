"""What is wrong with a result and where: it is shown apart, and everything else goes on."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Fault(BaseModel):
    """One result that a board leaves out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    where: str
    """The file, relative to the results folder, or the cell."""
    what: str
    """What is wrong, and what to do."""
    slug: str = ""
    """The cell, where that is known."""

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"
