"""The normalising screen and training rule: one spelling for every input, in training as at inference."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.context import Context
from bench.contracts import Action, Known, TaskInfo
from bench.errors import ConfigError
from bench.languages.normalising import normalise
from bench.models import Trainer, TrainingSettings, create
from bench.plugins import build, parameters_of
from bench.samples import Sample
from defenses.screen.normalise import NormalisedScreen
from defenses.training.normalise import NormalisedTraining
from tests.models_toys import CLONES, DEFECTS, SEARCH, SMALL, context, defects


def screened(plugin: NormalisedScreen, samples: list[Sample], info: TaskInfo = DEFECTS) -> list[Sample]:
    """The samples as the model would see them."""
    fitted = plugin.fit(Known(plugin.needs), info, Context(seeds={}, scratch=Path("unused")))
    verdicts = fitted.screen(samples)
    assert [v.id for v in verdicts] == [s.id for s in samples]
    return [s if v.rewritten is None else v.rewritten for s, v in zip(samples, verdicts, strict=True)]


def test_two_spellings_of_one_program_look_the_same_to_the_model() -> None:
    one = Sample("s", ("def work(alpha):\n    # hm\n    beta = alpha  +1\n    return beta\n",), "python")
    other = Sample("s", ("def  job(x):\n    '''d'''\n    y = (x + 0x1)\n    return y",), "python")
    assert screened(NormalisedScreen(), [one]) == screened(NormalisedScreen(), [other])


def test_both_programs_of_a_pair_are_normalised_and_a_query_is_not() -> None:
    program = "def work(alpha):\n    return alpha # x\n"
    (pair,) = screened(NormalisedScreen(), [Sample("p", (program, program), "python")], CLONES)
    assert pair.programs == ("def f(v0):\n    return v0\n",) * 2
    query = Sample("q", (program,), "python", None, "work  # alpha", "g")
    (found,) = screened(NormalisedScreen(), [query], SEARCH)
    assert found == query.with_program(0, "def work(v0):\n    return v0\n"), "search keeps what queries ask for"


def test_the_score_counts_what_hardly_anybody_writes() -> None:
    plain = "def f(v0):\n    return v0\n"
    odd = "def f(v0):\n    if 1 > 2:\n        raise Exception('x')\n    return v\u200b0\n"
    fitted = NormalisedScreen().fit(Known(NormalisedScreen().needs), DEFECTS, Context(seeds={}, scratch=Path("unused")))
    first, second = fitted.screen([Sample("a", (plain,), "python"), Sample("b", (odd,), "python")])
    assert (first.action, first.score) == (Action.ACCEPT, 0.0)
    assert (second.action, second.score) == (Action.REWRITE, 2.0)
    assert second.rewritten is not None
    assert second.rewritten.programs == (plain,)


def test_the_rule_trains_on_what_the_screen_shows(tmp_path: Path) -> None:
    lent = context(tmp_path)
    train, valid = defects(24), defects(8, seed=1)
    settings = TrainingSettings(epochs=1, batch_size=8)
    model = create("tiny", DEFECTS, train, SMALL, lent)
    rule = NormalisedTraining()
    lent.trainer = Trainer(settings, valid, lent)
    trained = rule.train(model, Known(rule.needs, _training=train), DEFECTS, lent)

    def shown(samples: tuple[Sample, ...]) -> list[Sample]:
        return [s.with_program(0, normalise("python", s.programs[0]).text) for s in samples]

    assert shown(train) == screened(NormalisedScreen(), list(train))
    plain = Trainer(settings, shown(valid), lent).fit(model, shown(train), axis="training")
    assert trained.fingerprint() == plain.fingerprint()
    assert trained.fingerprint() != Trainer(settings, valid, lent).fit(model, train, axis="training").fingerprint()


@pytest.mark.parametrize("cls", [NormalisedScreen, NormalisedTraining])
def test_steps_are_checked(cls: type[NormalisedScreen] | type[NormalisedTraining]) -> None:
    with pytest.raises(ConfigError):
        build(cls, {"steps": ["layouts"]})
    with pytest.raises(ConfigError, match="needs the step 'comments'"):
        build(cls, {"steps": ["layout"]})
    plugin = build(cls, {"steps": ["comments", "names"], "function_name": False})
    assert build(cls, parameters_of(plugin)) == plugin
