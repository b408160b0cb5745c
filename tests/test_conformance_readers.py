"""The conformance suite on the screens' optional readers: a causal or a masked model that is named by a folder."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import pytest

from bench.conformance import screens
from bench.conformance.checks import Broken, Outcome, Subject, run_check
from bench.conformance.common import TOY_CHECKS
from bench.contracts import Action, FittedScreen, Plugin, Screen, TaskKind, Verdict
from bench.plugins import build
from bench.samples import Sample
from defenses.screen.attdef import AttDef
from defenses.screen.codepurify import CodePurify
from defenses.screen.onion import FittedOnion, Onion
from tests.causal_toys import save
from tests.models_toys import one_thread

# Few clean samples, and a rate that they can vouch for: every check of conformance fits and reads several times.
READERS: dict[str, tuple[type[Screen], str, dict[str, object]]] = {
    "onion, GPT-2": (Onion, "model", {"clean": 12, "false_positive_rate": 0.2}),
    "onion, Llama": (Onion, "model", {"clean": 12, "false_positive_rate": 0.2}),
    "attdef, masked": (
        AttDef,
        "validator",
        {"clean": 12, "false_positive_rate": 0.2, "validator_rate": 0.5, "steps": 2},
    ),
    "codepurify, masked": (CodePurify, "repair", {"clean": 12, "false_positive_rate": 0.2}),
}
MAKERS = {"GPT-2": "gpt2", "Llama": "llama", "masked": "roberta"}


class OfReader(Subject):
    """A screen on a toy, with the parameters of a test instead of the class's own."""

    parameters: dict[str, object]

    @cached_property
    def plugin(self) -> Plugin:
        return build(self.cls, self.parameters)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Random models, each as its maker would save it."""
    folder = tmp_path_factory.mktemp("readers")
    return {words: save(kind, folder / kind, positions=48) for words, kind in MAKERS.items()}


def subject(name: str, kind: TaskKind, folders: dict[str, Path]) -> OfReader:
    cls, parameter, others = READERS[name]
    made = OfReader(cls, kind, screens.FAMILY)
    made.parameters = {**others, parameter: str(folders[name.split(", ")[1]])}
    one_thread()
    return made


@pytest.mark.slow
@pytest.mark.parametrize("name", ["onion, GPT-2", "attdef, masked", "codepurify, masked"])
def test_a_screen_with_a_reader_keeps_every_rule(name: str, folders: dict[str, Path]) -> None:
    on = subject(name, TaskKind.CLASSIFICATION, folders)  # one for all rules: they share its exercises
    found = [run_check(check, on, on.kind) for check in TOY_CHECKS]
    assert {result.check: result.reason for result in found if result.outcome is not Outcome.PASSED} == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("onion, GPT-2", TaskKind.PAIRS),
        ("onion, Llama", TaskKind.CLASSIFICATION),
        *[(name, kind) for name in ("attdef, masked", "codepurify, masked") for kind in TaskKind],
    ],
)
def test_one_verdict_a_row_in_any_batch_size(name: str, kind: TaskKind, folders: dict[str, Path]) -> None:
    on = subject(name, kind, folders)
    screens.aligned(on)
    verdicts = on.answer().result
    screens.check_verdicts(verdicts, on.ordinary().inputs)
    screens.lets_clean_pass(on)
    assert len({verdict.score for verdict in verdicts}) > 1  # the reader has read
    assert {verdict.action for verdict in verdicts} <= {Action.ACCEPT, Action.REWRITE}


def test_a_reader_that_looks_at_its_batch_is_caught(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    honest = FittedOnion.screen

    def screen(self: FittedScreen, inputs: list[Sample]) -> list[Verdict]:
        verdicts = honest(self, inputs)  # type: ignore[arg-type]
        return [Verdict(v.id, v.action, v.score + len(inputs), v.rewritten) for v in verdicts]

    monkeypatch.setattr(FittedOnion, "screen", screen)
    with pytest.raises(Broken, match="the score of an input moves"):
        screens.aligned(subject("onion, GPT-2", TaskKind.CLASSIFICATION, folders))
