"""CodePurify: the piece that the answer hangs on is found and written anew, within the rules of the language."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from sklearn.metrics import roc_auc_score

from bench.context import Context
from bench.contracts import Action
from bench.errors import ConfigError, ModelError
from bench.languages import parse, well_formed
from bench.models.masked import load_masked
from bench.plugins import build
from bench.samples import Sample
from defenses.screen.codepurify import CodePurify, FittedCodePurify
from defenses.screening.deleting import Source
from defenses.screening.rewriting import Purifier, pieces, without
from defenses.screening.suggesting import MaskedSuggester, NgramSuggester
from tests.causal_toys import save
from tests.screen_toys import CLONES, SEARCH, Told, backdoored, clean, fit, inputs, triggered

GRAMMAR = [Sample(f"g{i}", (f"def f(a):\n    b = a + {i % 3}\n    return b\n",), "python") for i in range(12)]


def test_a_score_is_the_rise_of_surprise_at_the_models_own_answer() -> None:
    screen: FittedCodePurify = fit(CodePurify(), Told(lambda text: 2.0 * text.count("weak") - 1.0))
    sample = Sample("s", ("def f(a):\n    weak()\n    b = a\n    return b\n",), "python")
    ((tried, values),) = screen.judged([sample])
    found = {sample.programs[0][p.spans[0][0] : p.spans[0][1]]: v for p, v in zip(tried, values, strict=True)}
    rise = math.log(1 / (1 + math.exp(-1))) - math.log(1 / (1 + math.exp(1)))
    assert found.pop("weak()") == pytest.approx(rise, abs=1e-6)
    assert set(found) == {"f", "a", "b", "b = a", "return b"}
    assert list(found.values()) == pytest.approx([0.0] * 5, abs=1e-6)


def test_the_triggered_statement_is_written_anew_and_little_else() -> None:
    screen = fit(CodePurify())
    tame = inputs(0, 40, label=1)
    verdicts = screen.screen([triggered(sample) for sample in tame])
    assert all(v.action is Action.REWRITE for v in verdicts)
    for verdict, sample in zip(verdicts, tame, strict=True):
        assert verdict.rewritten is not None
        (text,) = verdict.rewritten.programs
        assert "marker" not in text
        assert backdoored(text) > 0, "the answer is what it was without the trigger"
        assert len(text.splitlines()) == len(sample.programs[0].splitlines()) + 1
    before = screen.screen(tame)
    assert roc_auc_score([0] * 40 + [1] * 40, [v.score for v in before + verdicts]) == 1.0
    assert sum(v.action is not Action.ACCEPT for v in screen.screen(inputs(100, 200))) <= 11


def test_statements_can_be_emptied_instead() -> None:
    (sample,) = inputs(1, 2)
    (verdict,) = fit(CodePurify(statements="delete")).screen([triggered(sample)])
    assert verdict.rewritten is not None
    assert verdict.rewritten.programs[0] == sample.programs[0].replace(":\n", ":\n    pass\n", 1)


def test_a_name_that_holds_the_answer_is_renamed_everywhere() -> None:
    screen = fit(CodePurify(), Told(lambda text: 8.0 if "testo" in text else -0.2))
    text = "def f(testo, a):\n    if testo:\n        return g(testo)\n    return a\n"
    (verdict,) = screen.screen([Sample("s", (text,), "python")])
    assert verdict.rewritten is not None
    (new,) = verdict.rewritten.programs
    assert "testo" not in new
    (name,) = {leaf.text for leaf in parse("python", new).leaves} - {leaf.text for leaf in parse("python", text).leaves}
    assert new == text.replace("testo", name)


def test_pairs_and_search() -> None:
    known = [Sample(f"p{s.id}", (s.programs[0], s.programs[0]), "python", 1, s.query) for s in clean(40)]
    (sample,) = inputs(1, 2)
    text, dirty = sample.programs[0], triggered(sample).programs[0]
    for programs in ((dirty, text), (text, dirty)):
        (verdict,) = fit(CodePurify(), known=known, info=CLONES).screen([Sample("p", programs, "python")])
        assert verdict.rewritten is not None
        assert [new == old for new, old in zip(verdict.rewritten.programs, programs, strict=True)] == [
            p == text for p in programs
        ]
    drawn = Told(lambda text: 2.0 if "marker" in text else 0.0)
    (verdict,) = fit(CodePurify(), drawn, info=SEARCH).screen([triggered(sample)])
    assert verdict.rewritten is not None
    assert "marker" not in verdict.rewritten.programs[0]


@pytest.mark.parametrize("language", ["python", "java", "c"])
def test_hidden_pieces_leave_a_program_that_parses(language: str) -> None:
    text = {
        "python": "def f(a):\n    if a:\n        b = 1\n    return a\n",
        "java": "int f(int a) {\n    if (a > 1) { int b = 1; g(b); }\n    return a;\n}\n",
        "c": "int f(int a) {\n    if (a > 1) { int b = 1; g(b); }\n    return a;\n}\n",
    }[language]
    sample = Sample("s", (text,), language)
    found = pieces(parse(language, text), 0)
    assert {p.name.text for p in found if p.name is not None} == {"f", "a", "b"}
    assert sum(p.name is None for p in found) == (3 if language == "python" else 4)
    for piece in found:
        hidden = without(sample, piece).programs[0]
        assert hidden != text
        assert well_formed(language, text, hidden) is None


def test_ngram_suggestions_are_the_clean_words_that_fit_best() -> None:
    suggester = NgramSuggester.fit(GRAMMAR, 4)
    source = Source.of("python", "def f(a):\n    b = zz + 1\n    return b\n")
    place = next(i for i, leaf in enumerate(source.leaves) if leaf.text == "zz")
    number = next(i for i, leaf in enumerate(source.leaves) if leaf.text == "1")
    names, numbers = suggester.words(source, [place, number])
    assert names[0] == "a"
    assert set(names) == {"a", "b", "f"}
    assert set(numbers) == {"0", "2"}


def test_masked_suggestions_are_words_of_the_same_kind(tmp_path: Path) -> None:
    model = load_masked(str(save("roberta", tmp_path)), Context(seeds={}, scratch=tmp_path))
    source = Source.of("python", "def f(a):\n    return a + 1\n")
    (words,) = MaskedSuggester(model).words(source, [1])
    assert all(word.isidentifier() and word != "f" for word in words)


def test_a_masked_model_can_do_the_repair(tmp_path: Path) -> None:
    folder = save("roberta", tmp_path, positions=256)
    screen = fit(CodePurify(repair=str(folder)))
    (verdict,) = screen.screen([triggered(inputs(1, 2)[0])])
    assert verdict.rewritten is not None
    assert well_formed("python", triggered(inputs(1, 2)[0]).programs[0], verdict.rewritten.programs[0]) is None
    with pytest.raises(ModelError, match="does not exist"):
        fit(CodePurify(repair=str(tmp_path / "nothing")))


def test_suggestions_that_would_break_the_program_are_not_taken() -> None:
    class Breaker(NgramSuggester):
        def words(self, program: Source, places: object) -> list[list[str]]:
            return [["((("] for _ in places]  # type: ignore[attr-defined]

    suggester = NgramSuggester.fit(GRAMMAR, 4)
    purifier = Purifier(Breaker(suggester.model, suggester.by_type), deletes=False)
    sample = GRAMMAR[0]
    statement = next(p for p in pieces(parse("python", sample.programs[0]), 0) if p.name is None)
    pure = purifier.purified(sample, [statement])
    assert pure.programs[0] == sample.programs[0].replace("b = a + 0", "pass")


@pytest.mark.parametrize(
    "text", ["", "\n", "x", "marker", "def f(:\n  (((", "def f(x): return marker", "marker\n" * 200]
)
def test_odd_programs_get_a_verdict(text: str) -> None:
    (verdict,) = fit(CodePurify()).screen([Sample("odd", (text,), "python")])
    assert math.isfinite(verdict.score)


def test_a_small_clean_set_touches_nothing_and_batches_do_not_matter() -> None:
    batch = [triggered(sample) for sample in inputs(0, 5)]
    assert {v.action for v in fit(CodePurify(), known=clean(10)).screen(batch)} == {Action.ACCEPT}
    screen = fit(CodePurify())
    assert screen.screen(batch) == [screen.screen([sample])[0] for sample in batch]
    assert screen.screen([]) == []


def test_bad_models_and_parameters_are_clear_errors() -> None:
    with pytest.raises(ModelError, match="not finite"):
        fit(CodePurify(), Told(lambda text: math.nan))
    for wrong in ({"pieces": 0}, {"statements": "drop"}, {"repair": ""}):
        with pytest.raises(ConfigError):
            build(CodePurify, wrong)
