"""STRIP: entropies are per input, copies parse, and what survives every mixture is rejected."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from bench.contracts import Action
from bench.errors import ConfigError, ModelError, PluginError
from bench.languages import parse, well_formed
from bench.plugins import build
from bench.samples import Sample
from defenses.screen.strip import FittedStrip, Strip
from defenses.screening.confidence import OfQueries, entropies
from defenses.screening.mixing import Donors
from tests.screen_toys import CLONES, SEARCH, Told, clean, fit, inputs, triggered


def header_triggered(sample: Sample) -> Sample:
    """A trigger that no exchange of statements and names takes away: the condition of a branch."""
    return sample.with_program(0, sample.programs[0].replace(":\n", ":\n    if marker < 0:\n        pass\n", 1))


def test_an_entropy_is_that_of_its_own_input() -> None:
    """With a model that says 1/2, 9/10 … whatever is mixed in, the scores are these entropies, worked by hand."""
    shares = {"one": 0.5, "two": 0.9, "three": 0.99}
    model = Told(lambda text: math.log((p := shares[text.split("# ")[1].split()[0]]) / (1 - p)))
    known = [Sample(f"c{i}", ("# two\n",), "python", 0) for i in range(20)]
    screen = fit(Strip(), model, known)
    batch = [Sample(name, (f"x = 1  # {name}\n",), "python") for name in shares]
    expected = [p * math.log(p) + (1 - p) * math.log(1 - p) for p in shares.values()]
    assert [v.score for v in screen.screen(batch)] == pytest.approx(expected, rel=1e-5)
    assert [screen.screen([sample])[0].score for sample in batch] == pytest.approx(expected, rel=1e-5)


def test_the_score_is_the_mean_over_the_copies() -> None:
    screen: FittedStrip = fit(Strip(copies=4))
    (sample,) = inputs(0, 1)
    copies = [screen._copy(sample, number) for number in range(4)]
    assert len({copy.programs for copy in copies}) > 1
    by_hand = -float(np.mean([entropies(screen.answers.of([copy]))[0] for copy in copies]))
    assert screen.screen([sample])[0].score == pytest.approx(by_hand)


def test_what_survives_every_mixture_is_rejected_and_clean_inputs_mostly_pass() -> None:
    screen = fit(Strip(false_positive_rate=0.05), known=clean(200))
    tame = inputs(0, 60)
    before = screen.screen(tame)
    after = screen.screen([header_triggered(sample) for sample in tame])
    assert roc_auc_score([0] * 60 + [1] * 60, [v.score for v in before + after]) > 0.95
    assert sum(v.action is Action.REJECT for v in after) >= 55
    assert np.mean([v.action is Action.REJECT for v in before]) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 60)


@pytest.mark.parametrize("language", ["python", "java", "c"])
def test_copies_parse_and_exchange_what_they_should(language: str) -> None:
    braces = "int g(int one) {\n    print(one);\n    return 7;\n}\n"
    adds = "int f(int left) {\n    int total = left;\n    return total;\n}\n"
    texts = {
        "python": (
            "def f(left, right):\n    total = left + right\n    return total\n",
            "def g(one):\n    two = one * 3\n    print(two)\n",
        ),
        "java": (adds, braces),
        "c": (adds, braces),
    }
    text, other = texts[language]
    donors = Donors.of([Sample("d", (other,), language)])
    assert "one" in donors.names
    assert any("print" in statement for statement in donors.statements)
    full = donors.mixed(language, text, 1.0, np.random.default_rng(0))
    assert "total" not in full
    assert {leaf.text for leaf in parse(language, full).leaves} & {"g", "one", "two"}
    for draw in range(20):
        mixed = donors.mixed(language, text, 0.5, np.random.default_rng(draw))
        assert well_formed(language, text, mixed) is None


def test_draws_depend_on_the_input_and_the_seed_alone() -> None:
    batch = [triggered(s) if i % 2 else s for i, s in enumerate(inputs(0, 8))]
    screen = fit(Strip())
    together = screen.screen(batch)
    assert together == [screen.screen([s])[0] for s in batch] == fit(Strip()).screen(batch[::-1])[::-1]
    assert together != fit(Strip(), seed=1).screen(batch)


def test_pairs_are_perturbed_on_both_sides() -> None:
    screen: FittedStrip = fit(Strip(share=1.0), known=clean(20), info=CLONES)
    one, two = inputs(0, 2)
    pair = Sample("p", (one.programs[0], two.programs[0]), "python")
    copy = screen._copy(pair, 0)
    assert copy.programs[0] != pair.programs[0]
    assert copy.programs[1] != pair.programs[1]


def test_search_asks_among_the_clean_queries() -> None:
    screen: FittedStrip = fit(Strip(copies=2), info=SEARCH)
    assert isinstance(screen.answers, OfQueries)
    assert screen.answers.queries.shape == (3, 2)
    cosines = np.cos(np.array([0.0, 1.0, 2.0]) - 1.0)
    at_one = Told(lambda text: 1.0)
    by_hand = np.exp(20 * cosines) / np.exp(20 * cosines).sum()
    found = OfQueries(at_one, clean(6)).of(inputs(0, 1))  # type: ignore[arg-type]
    assert np.exp(found[0]) == pytest.approx(by_hand, rel=1e-4)
    with pytest.raises(PluginError, match="distinct query"):
        fit(Strip(), known=clean(1), info=SEARCH)


@pytest.mark.parametrize("text", ["", "\n", "x", "def f(:\n  (((", "def f(x): return x", "é = '名前'\n" * 300])
def test_odd_programs_get_a_verdict(text: str) -> None:
    (verdict,) = fit(Strip(), known=clean(10)).screen([Sample("odd", (text,), "python")])
    assert math.isfinite(verdict.score)
    assert verdict.action is Action.ACCEPT, "ten clean inputs cannot vouch for 1 %"


def test_a_model_that_gives_no_numbers_is_a_clear_error() -> None:
    with pytest.raises(ModelError, match="not finite"):
        fit(Strip(), Told(lambda text: math.nan))


def test_no_input_gives_no_verdict_and_parameters_are_checked() -> None:
    assert fit(Strip()).screen([]) == []
    for wrong in ({"share": 0.0}, {"copies": 0}, {"false_positive_rate": 1.0}):
        with pytest.raises(ConfigError):
            build(Strip, wrong)
