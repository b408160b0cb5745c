"""OSeqL: the line that holds the answer up is cut out, by hand-computed falls."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from bench.contracts import Action
from bench.errors import ConfigError, ModelError
from bench.plugins import build
from bench.samples import Sample
from defenses.screen.oseql import FittedOSeqL, OSeqL, standing_out
from defenses.screening.pieces import lines
from tests.screen_toys import CLONES, SEARCH, TRIGGER, Told, clean, fit, inputs, triggered


def test_a_line_stands_out_by_its_fall_less_the_median_fall() -> None:
    screen: FittedOSeqL = fit(OSeqL(), Told(lambda text: 2.0 * text.count("weak") - 1.0))
    sample = Sample("s", ("a\nweak\nb\n\nc\n",), "python")
    ((tried, values),) = screen.outliers([sample])
    assert [sample.programs[0].encode()[a:b] for _, (a, b) in tried] == [b"a\n", b"weak\n", b"b\n", b"c\n"]
    fall = 1 / (1 + math.exp(-1)) - 1 / (1 + math.exp(1))
    assert values == pytest.approx([0.0, fall, 0.0, 0.0], abs=1e-6)
    assert standing_out(np.array([0.1, 0.3, 0.2])).tolist() == pytest.approx([-0.1, 0.1, 0.0])


def test_the_trigger_line_is_cut_out_and_nothing_else() -> None:
    screen = fit(OSeqL())
    tame = inputs(0, 40, label=1)
    verdicts = screen.screen([triggered(sample) for sample in tame])
    assert [v.rewritten for v in verdicts] == tame
    before = screen.screen(tame)
    assert roc_auc_score([0] * 40 + [1] * 40, [v.score for v in before + verdicts]) == 1.0
    assert sum(v.action is not Action.ACCEPT for v in screen.screen(inputs(100, 200))) <= 11


def test_inputs_can_be_rejected_instead() -> None:
    screen = fit(OSeqL(action="reject"))
    verdicts = screen.screen([triggered(sample) for sample in inputs(0, 10, label=1)])
    assert {v.action for v in verdicts} == {Action.REJECT}


def test_a_trigger_in_either_program_of_a_pair_is_cut_out() -> None:
    ones = [Sample(f"p{s.id}", (s.programs[0], s.programs[0]), "python", 1) for s in clean(40)]
    screen = fit(OSeqL(), known=ones, info=CLONES)
    (sample,) = inputs(1, 2)
    text = sample.programs[0]
    dirty = text.replace(":\n", ":\n" + TRIGGER, 1)
    for programs in ((dirty, text), (text, dirty)):
        (verdict,) = screen.screen([Sample("p", programs, "python")])
        assert verdict.rewritten is not None
        assert verdict.rewritten.programs == (text, text)


def test_in_search_a_line_that_draws_a_program_to_a_query_is_cut_out() -> None:
    model = Told(lambda text: 2.0 if "marker" in text else 0.0)
    screen = fit(OSeqL(), model, info=SEARCH)
    (sample,) = inputs(0, 1)
    (verdict,) = screen.screen([triggered(sample)])
    assert verdict.rewritten == sample
    assert verdict.score > 0.9


def test_only_the_first_lines_are_tried() -> None:
    screen: FittedOSeqL = fit(OSeqL(lines=3))
    ((tried, _),) = screen.outliers(inputs(0, 1))
    assert len(tried) == 3


@pytest.mark.parametrize(
    "text", ["", "\n", "x", "marker", "\n\nmarker\n\n", "def f(x): return marker", "marker\nmarker\n"]
)
def test_a_program_never_loses_all_its_lines(text: str) -> None:
    (verdict,) = fit(OSeqL()).screen([Sample("odd", (text,), "python")])
    assert math.isfinite(verdict.score)
    if len(text.split()) < 2 or "marker" not in text:
        assert (verdict.action, verdict.score) == (Action.ACCEPT, 0.0)
    assert verdict.rewritten is None or verdict.rewritten.programs[0].strip()


def test_lines_are_bytes_and_keep_their_ends() -> None:
    text = "é\r\n\r\n  \nx"
    assert [text.encode()[a:b] for a, b in lines(text)] == ["é\r\n".encode(), b"x"]


def test_a_small_clean_set_touches_nothing_and_batches_do_not_matter() -> None:
    batch = [triggered(sample) for sample in inputs(0, 6)]
    assert {v.action for v in fit(OSeqL(), known=clean(10)).screen(batch)} == {Action.ACCEPT}
    screen = fit(OSeqL())
    assert screen.screen(batch) == [screen.screen([sample])[0] for sample in batch]
    assert screen.screen([]) == []


def test_bad_models_and_parameters_are_clear_errors() -> None:
    with pytest.raises(ModelError, match="not finite"):
        fit(OSeqL(), Told(lambda text: math.nan))
    for wrong in ({"lines": 0}, {"action": "delete"}, {"false_positive_rate": 0}):
        with pytest.raises(ConfigError):
            build(OSeqL, wrong)
