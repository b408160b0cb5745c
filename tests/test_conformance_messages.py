"""What a newcomer reads when a new plugin goes wrong: a sentence that says what, where, and what to do."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from bench import conformance
from bench.conformance import subjects
from bench.contracts import TaskKind
from bench.scaffold import plugin_text

MISTAKES = {
    "a filter that returns a tuple": (
        "filter",
        "return Suspicion(scores, keep)",
        "return scores, keep",
        "works",
        "judge() returned tuple, not a Suspicion",
    ),
    "a screen that returns booleans": (
        "screen",
        "Verdict(sample.id, Action.REJECT if score > self.limit else Action.ACCEPT, score)",
        "score > self.limit",
        "works",
        "screen() returned a list that holds ['bool'], not only Verdicts",
    ),
    "a screen whose fit() forgets to return": (
        "screen",
        "return FittedMistaken(",
        "FittedMistaken(",
        "works",
        "fit() returned NoneType, not a FittedScreen",
    ),
    "a repair that returns the model": (
        "repair",
        "return Repaired(model, ",
        "return model or Repaired(model, ",
        "works",
        "repair() returned WhiteBox, not a Repaired",
    ),
    "a repair with an array among its facts": (
        "repair",
        'facts={"epochs": self.epochs}',
        'facts={"epochs": {self.epochs}}',
        "works",
        "its facts are not JSON, so no record can hold them: Object of type set",
    ),
    "an attack that returns its own class": (
        "attack",
        "return MistakenTrigger(self.variable)",
        "return self",
        "works",
        "prepare() returned Mistaken, not a Trigger",
    ),
    "an edit beyond the program": (
        "attack",
        "Edit(edit.start, edit.end, edit.replacement, side)",
        "Edit(edit.start + 9999, edit.end + 9999, edit.replacement, side)",
        "works",
        "the edit 'ret_val_ = 0' cannot be made: edit [",
    ),
    "knowledge that was not declared": (
        "filter",
        "training_set=True, model=Access.WEIGHTS",
        "training_set=True",
        "works",
        "NotDeclared: model=WEIGHTS was not declared in this plugin's needs",
    ),
    "an error deep in a library": (
        "filter",
        "np.linalg.norm(features - features.mean(axis=0), axis=1)",
        "np.linalg.norm(features - features.mean(axis=0), axis=7)",
        "works",
        "(mistaken.py:",
    ),
    "scores that are no numbers": (
        "filter",
        "return Suspicion(scores, keep)",
        "return Suspicion(scores / 0.0 * 0.0, keep)",
        "works",
        "160 of 160 scores are not finite, the first at row 0",
    ),
    "a task that returns a dictionary": (
        "task",
        'return Splits(parts["train"], parts["valid"], parts["budget"], parts["test"])',
        "return parts",
        "works",
        "splits() returned dict, not Splits",
    ),
    "an id in two splits": (
        "task",
        'Sample(f"{part}-{len(samples)}"',
        'Sample(f"{len(samples)}"',
        "splits apart",
        "24 id(s) stand in both train and valid",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_in_a_sentence(mistake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subjects, "kinds_of", lambda cls: (TaskKind.CLASSIFICATION,))  # for the test's time
    family, old, new, check, sentence = MISTAKES[mistake]
    text = plugin_text(family, "mistaken")
    assert text.count(old) == 1
    path = tmp_path / "mistaken.py"
    path.write_text(text.replace(old, new))
    console = Console(file=io.StringIO(), width=80)
    assert conformance.check([path], console=console) == 1
    assert isinstance(console.file, io.StringIO)
    (line,) = [one for one in console.file.getvalue().splitlines() if f"FAILED {check} on classification: " in one]
    assert sentence in line
