"""Pages that list: the plugins of a family, and the definitions of a board's numbers."""

from __future__ import annotations

from collections.abc import Sequence

from bench.board.columns import definitions
from bench.board.table import MARGIN, Board
from bench.contracts import Defense, Plugin
from bench.documentation.restructured import escape, heading, table
from bench.pipeline import badges

HEADS = {
    "task": ("Tasks", "What a model is asked to do, and where the programs come from."),
    "attack": ("Attacks", "What is edited into programs so that a model learns to obey it."),
    "filter": (
        "Filters",
        "Defenses that act on the training data, before training: a suspicion score a sample, and a decision.",
    ),
    "training": ("Training rules", "Defenses that decide how the model is trained."),
    "repair": ("Repairs", "Defenses that make a new model from the trained one, with a small clean set."),
    "screen": ("Screens", "Defenses that accept, reject or rewrite each input, at inference."),
}


def family_list(family: str, plugins: Sequence[Plugin]) -> str:
    """The page of a family: a row a plugin, each with a link to its page."""
    title, said = HEADS[family]
    rows = []
    for plugin in plugins:
        knows = [", ".join(map(escape, badges(plugin))) or "nothing"] if isinstance(plugin, Defense) else []
        rows.append(
            [
                f":doc:`{plugin.name} <{family}/{plugin.name}>`",
                escape(plugin.summary),
                *knows,
                escape(plugin.paper) or "–",
            ]
        )
    knows_head = ["may know"] if any(isinstance(plugin, Defense) for plugin in plugins) else []
    tree = "\n".join(f"   {plugin.name} <{family}/{plugin.name}>" for plugin in plugins)
    parts = [heading(title), said, table(["name", "what it does", *knows_head, "paper"], rows, name="plugins")]
    return "\n\n".join([*parts, f".. toctree::\n   :hidden:\n\n{tree}"]) + "\n"


def definitions_table() -> str:
    """Every printed number of a board and what it means, from the same text that stands under the boards."""
    board = Board(suites=(), margin=MARGIN, rows=(), blocks=())
    rows = [(f"**{escape(name)}**", escape(text)) for name, text in definitions(board)]
    return table(("number", "definition"), rows, name="definitions") + "\n"
