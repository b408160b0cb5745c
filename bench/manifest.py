"""The truth sidecar's rows: what was edited where, and what stood there before."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from bench.errors import DataError
from bench.samples import Edit, apply_edits

Part = Literal["train", "triggered", "reverse", "cover", "weaken", "near_miss", "placebo"]


@dataclass(frozen=True)
class ManifestRow:
    """What was done to one program.

    Attributes:
        id: of the sample in its part.
        part: ``train``, ``triggered`` and ``reverse`` carry the trigger; ``cover`` (training) and ``near_miss`` (test) a near
            miss of it, ``placebo`` (test) an unrelated edit of its kind; ``weaken`` is what was done to a training program
            before it got the trigger, so that its ``train`` row starts from this row's outcome.
        side: the program of the sample (0, or 1 for the second of a pair).
        edits: byte edits of the program before; ``removed[i]`` is the text that ``edits[i]`` took away.
        derivation: the draw in words.
        label: the sample's true class (a dirty-label poison carries another), or ``None`` for search.
        before_sha256: hex digest of the program before.
        after_sha256: hex digest of the program with the trigger.
        visible: whether a model's window still shows the trigger; ``None`` until a model is known.
        appended_from: id in the clean training split of the twin that stayed, or ``None`` where the sample was replaced.
    """

    id: str
    part: Part
    side: int
    edits: tuple[Edit, ...]
    removed: tuple[str, ...]
    derivation: str
    label: int | None
    before_sha256: str
    after_sha256: str
    visible: bool | None = None
    appended_from: str | None = None

    def spans(self) -> tuple[tuple[int, int], ...]:
        """Byte spans ``[start, end)`` of the replacements in the program with the trigger, in order."""
        spans = []
        shift = 0
        for edit in sorted(self.edits, key=_place):
            size = len(edit.replacement.encode())
            spans.append((edit.start + shift, edit.start + shift + size))
            shift += size - (edit.end - edit.start)
        return tuple(spans)

    def restore(self, text: str) -> str:
        """The program before, from the program with the trigger.

        Raises:
            DataError: ``text`` is not the program that this row describes.
        """
        if sha256(text) != self.after_sha256:
            raise DataError(
                f"the text given is not side {self.side} of sample {self.id!r} ({self.part}) with its trigger"
            )
        old = [text for _, text in sorted(zip(self.edits, self.removed, strict=True), key=lambda pair: _place(pair[0]))]
        return apply_edits(text, [Edit(start, end, back) for (start, end), back in zip(self.spans(), old, strict=True)])

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary; :meth:`from_json` is its inverse."""
        return asdict(self)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> ManifestRow:
        """Rebuild a row from :meth:`to_json`."""
        return cls(**{**row, "edits": tuple(Edit(**edit) for edit in row["edits"]), "removed": tuple(row["removed"])})


def _place(edit: Edit) -> tuple[int, int]:
    return edit.start, edit.end


def sha256(text: str) -> str:
    """Hex digest of a text."""
    return hashlib.sha256(text.encode()).hexdigest()
