"""Screens: ONION finds what is alien and leaves what is usual; the controls do as they say."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from bench.context import Context
from bench.contracts import Action, FittedScreen, Known, Screen, TaskInfo, TaskKind
from bench.errors import ConfigError
from bench.languages import parse
from bench.plugins import build, parameters_of
from bench.samples import Sample, edit_sample, input_digest
from defenses.screen.onion import FittedOnion, Onion
from defenses.screen.oracle import OracleScreen
from defenses.screen.random import RandomScreen
from defenses.screening.deleting import NgramReader, Source, cut, deletions
from defenses.screening.thresholds import conformal_threshold, fold_numbers

INFO = TaskInfo("toy", TaskKind.CLASSIFICATION, "python", ("safe", "weak"), "accuracy")
PAIRS = TaskInfo("toy", TaskKind.PAIRS, "python", ("no", "yes"), "f1")
NAMES = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta")


def program(seed: int) -> str:
    """A few assignments and a return, drawn from a narrow grammar."""
    rng = np.random.default_rng(seed)
    lines = [f"    {rng.choice(NAMES)} = {rng.choice(NAMES)} + {rng.integers(3)}" for _ in range(rng.integers(2, 6))]
    return "\n".join([f"def {rng.choice(NAMES)}(alpha, beta):", *lines, f"    return {rng.choice(NAMES)}", ""])


def inputs(start: int, stop: int) -> list[Sample]:
    return [Sample(f"s{i}", (program(i),), "python", None) for i in range(start, stop)]


def triggered(sample: Sample) -> Sample:
    """An alien keyword in the middle of the first assignment."""
    return sample.with_program(0, sample.programs[0].replace(" = ", " = while ", 1))


def fit(
    plugin: Screen, clean: list[Sample] | None = None, truth: frozenset[str] = frozenset(), seed: int = 0
) -> FittedScreen:
    known = Known(
        plugin.needs,
        _clean=tuple(clean if clean is not None else inputs(1000, 1200)) if plugin.needs.clean else None,
        _poisoned=truth if plugin.needs.truth else None,
    )
    return plugin.fit(known, INFO, Context(seeds={"defense": seed}, scratch=Path("unused")))


@pytest.fixture(scope="module")
def onion() -> FittedScreen:
    return fit(Onion())


# ------------------------------------------------------------------------------------------------------------------- ONION


def test_onion_deletes_the_alien_token_and_at_most_its_neighbours(onion: FittedScreen) -> None:
    for sample in inputs(0, 50):
        (verdict,) = onion.screen([triggered(sample)])
        assert verdict.action is Action.REWRITE
        assert verdict.rewritten is not None
        left = [leaf.text for leaf in parse("python", verdict.rewritten.programs[0]).leaves]
        before = [leaf.text for leaf in parse("python", sample.programs[0]).leaves]
        assert "while" not in left
        # A name beside the trigger is unlikely there too; ONION cannot tell which of the two is to blame.
        assert len(before) - len(left) <= 2


def test_nothing_is_as_suspicious_as_the_alien_token(onion: FittedScreen) -> None:
    assert isinstance(onion, FittedOnion)
    for sample in inputs(0, 50):
        program = Source.of("python", triggered(sample).programs[0])
        (suspicions,) = onion.model.suspicions([program])
        assert program.leaves[int(suspicions.argmax())].text == "while"


def test_onion_leaves_clean_programs_alone_at_the_stated_rate(onion: FittedScreen) -> None:
    changed = [v.action is not Action.ACCEPT for v in onion.screen(inputs(2000, 2400))]
    assert np.mean(changed) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400)


def test_onion_scores_triggered_programs_above_clean_ones(onion: FittedScreen) -> None:
    clean = inputs(0, 100)
    scores = [v.score for v in onion.screen(clean + [triggered(s) for s in clean])]
    assert roc_auc_score([0] * 100 + [1] * 100, scores) > 0.95


def test_suspicion_is_the_perplexity_lost_by_deleting_a_leaf_and_scoring_again(onion: FittedScreen) -> None:
    assert isinstance(onion, FittedOnion)
    assert isinstance(onion.model, NgramReader)
    texts = [triggered(sample).programs[0] for sample in inputs(3, 6)]
    texts += [text.replace("alpha", "getHTTPValue_2").replace("1", "'alpha'") for text in texts] + [""]
    programs = [Source.of("python", text) for text in texts]
    words, ngrams = onion.model.words, onion.model.ngrams
    for program, suspicions in zip(programs, onion.model.suspicions(programs), strict=True):
        parts = cut(program.leaves, words)
        without = [ngrams.perplexity(joined(parts[:i] + parts[i + 1 :])) for i in range(len(parts))]
        assert suspicions == pytest.approx(ngrams.perplexity(joined(parts)) - np.array(without), rel=1e-9, abs=1e-9)


def joined(parts: list[list[str]]) -> list[str]:
    return [piece for part in parts for piece in part]


def test_names_are_read_by_their_pieces_and_rare_literals_by_their_type() -> None:
    leaves = parse("python", "getHTTPValue_2 = while_x + 'rare' + 77 + 0\n").leaves
    assert cut(leaves, frozenset({"=", "+", "0"})) == [
        *(["get", "HTTP", "Value", "_", "2"], ["="], ["while", "_", "x"], ["+"]),
        *(["\0string_start"], ["\0string_content"], ["\0string_end"], ["+"], ["\0integer"], ["+"], ["0"]),
    ]


@pytest.mark.parametrize("name", ["testo_init", "zq"])
def test_a_rare_name_in_an_otherwise_usual_program_is_the_most_suspicious_leaf(onion: FittedScreen, name: str) -> None:
    assert isinstance(onion, FittedOnion)
    clean = inputs(0, 50)
    dirty = [sample.with_program(0, re.sub(r"= \w+", f"= {name}", sample.programs[0], count=1)) for sample in clean]
    for sample in dirty:
        program = Source.of("python", sample.programs[0])
        (suspicions,) = onion.model.suspicions([program])
        assert program.leaves[int(suspicions.argmax())].text == name
    scores = [verdict.score for verdict in onion.screen(clean + dirty)]
    assert roc_auc_score([0] * 50 + [1] * 50, scores) > 0.95


def test_a_verdict_does_not_depend_on_its_batch(onion: FittedScreen) -> None:
    batch = [triggered(s) if i % 3 else s for i, s in enumerate(inputs(0, 20))]
    together = onion.screen(batch)
    assert [v.id for v in together] == [s.id for s in batch]
    assert together == [onion.screen([s])[0] for s in batch] == onion.screen(batch[::-1])[::-1]


def test_the_rewritten_input_keeps_everything_but_the_programs(onion: FittedScreen) -> None:
    sample = Sample("q", triggered(inputs(0, 1)[0]).programs, "python", None, "a query", "group")
    (verdict,) = onion.screen([sample])
    assert verdict.rewritten is not None
    assert verdict.rewritten == sample.with_program(0, verdict.rewritten.programs[0])


def test_both_programs_of_a_pair_are_cleaned(onion: FittedScreen) -> None:
    one, two = inputs(0, 2)
    pair = Sample("p", (one.programs[0], triggered(two).programs[0]), "python", None)
    (verdict,) = onion.screen([pair])
    assert verdict.action is Action.REWRITE
    assert verdict.rewritten is not None
    assert verdict.rewritten.programs[0] == one.programs[0]
    assert "while" not in verdict.rewritten.programs[1]
    assert verdict.score == onion.screen([triggered(two)])[0].score


@pytest.mark.parametrize(
    "text", ["", "\n", "x", "# only a comment", "é = 'naïve 名前 😀'\n", "def f(:\n  (((", "int main() {", "a" * 5000]
)
@pytest.mark.parametrize("threshold", [None, -1e9])
def test_odd_programs_get_one_verdict_and_never_lose_all_their_tokens(text: str, threshold: float | None) -> None:
    screen = fit(Onion(threshold=threshold), inputs(0, 20))
    for language in ("python", "java", "c"):
        (verdict,) = screen.screen([Sample("odd", (text,), language, None)])
        assert math.isfinite(verdict.score)
        if verdict.rewritten is not None:
            assert len(parse(language, text).leaves) > 1
            assert verdict.rewritten.programs[0].strip()


@pytest.mark.parametrize("size", [0, 1, 2, 5])
def test_a_clean_set_too_small_to_vouch_for_the_rate_deletes_nothing(size: int) -> None:
    screen = fit(Onion(), inputs(0, size))
    assert {v.action for v in screen.screen([triggered(s) for s in inputs(50, 60)])} == {Action.ACCEPT}


def test_a_fixed_threshold_is_used_as_it_is() -> None:
    screen = fit(Onion(threshold=0.0), inputs(0, 30))
    (verdict,) = screen.screen([triggered(inputs(40, 41)[0])])
    assert verdict.action is Action.REWRITE


def test_fitting_twice_gives_the_same_screen() -> None:
    samples = [triggered(s) for s in inputs(0, 10)]
    assert fit(Onion(), inputs(50, 90)).screen(samples) == fit(Onion(), inputs(50, 90), seed=1).screen(samples)


@pytest.mark.parametrize(("text", "gone", "left"), [
    ("a.b", [1], "a b"),
    ("a + b", [1], "a b"),
    ("a + b", [0, 2], "+"),
    ("a.b.c", [1, 2], "a .c"),
    ("a.b c", [2], "a. c"),
    ("    a.b = c\n", [0], "    .b = c\n"),
    ("f(a)\n    b  # c\n", [4], "f(a)\n    # c\n"),
    ("return a\nb", [1], "return\nb"),
    ("é.b", [0], ".b"),
    ("x = 'é'\n", [0], "= 'é'\n"),
    ("a", [0], ""),
])  # fmt: skip
def test_deleted_leaves_leave_their_neighbours_apart(text: str, gone: list[int], left: str) -> None:
    leaves = parse("python", text).leaves
    edits = deletions(text, leaves, [i in gone for i in range(len(leaves))])
    assert edit_sample(Sample("s", (text,), "python"), edits).programs[0] == left


def test_the_conformal_threshold_is_the_rank_that_vouches_for_the_rate() -> None:
    scores = [float(i) for i in range(1, 20)]
    assert conformal_threshold(scores, 0.05) == 19.0
    assert conformal_threshold(scores, 0.5) == 10.0
    assert conformal_threshold(scores[:18], 0.05) == math.inf
    assert conformal_threshold([], 0.5) == math.inf


def test_the_conformal_threshold_holds_its_rate_on_new_scores() -> None:
    rng = np.random.default_rng(0)
    rates = [np.mean(rng.normal(size=500) > conformal_threshold(rng.normal(size=60).tolist(), 0.1)) for _ in range(200)]
    assert 0.07 < np.mean(rates) <= 0.103


def test_groups_stay_together_in_folds_where_there_are_enough_of_them() -> None:
    assert fold_numbers(["a", "b", "a", "c", "d", "b"], 3) == [0, 1, 0, 2, 0, 1]
    assert fold_numbers(["a", "a", "b", "a"], 3) == [0, 1, 2, 0]
    assert fold_numbers([], 5) == []


def test_onion_says_how_many_clean_samples_it_needs() -> None:
    assert Onion(clean=17).needs.clean == 17


# ------------------------------------------------------------------------------------------------------------- the controls


def test_the_oracle_rejects_the_triggered_twin_and_accepts_the_clean_one() -> None:
    clean = inputs(0, 20)
    twins = [triggered(s) for s in clean]
    screen = fit(OracleScreen(), truth=frozenset(input_digest(t) for t in twins[:10]))
    assert {v.action for v in screen.screen(clean)} == {Action.ACCEPT}
    assert [v.action for v in screen.screen(twins)] == [Action.REJECT] * 10 + [Action.ACCEPT] * 10


def test_an_input_digest_does_not_depend_on_what_is_hidden_from_a_screen() -> None:
    shown = Sample("s", ("x",), "python", None)
    assert input_digest(Sample("s", ("x",), "python", 1, "query", "group")) == input_digest(shown)
    assert len({input_digest(s) for s in (shown, shown.with_program(0, "y"), Sample("t", ("x",), "python"))}) == 3


def test_random_rejects_the_stated_share_without_skill() -> None:
    samples = [Sample(f"s{i}", ("x",), "python") for i in range(4000)]
    verdicts = fit(RandomScreen(rate=0.2)).screen(samples)
    assert np.mean([v.action is Action.REJECT for v in verdicts]) == pytest.approx(0.2, abs=0.02)
    assert roc_auc_score(np.arange(4000) % 2, [v.score for v in verdicts]) == pytest.approx(0.5, abs=0.03)
    assert min(v.score for v in verdicts if v.action is Action.REJECT) >= 0.8


def test_random_depends_on_the_id_and_the_seed_alone() -> None:
    samples = inputs(0, 50)
    one = fit(RandomScreen(rate=0.5)).screen(samples)
    assert one == fit(RandomScreen(rate=0.5)).screen([triggered(s) for s in samples][::-1])[::-1]
    assert one != fit(RandomScreen(rate=0.5), seed=1).screen(samples)


@pytest.mark.parametrize(("rate", "action"), [(0.0, Action.ACCEPT), (1.0, Action.REJECT)])
def test_random_at_the_ends_of_the_rate(rate: float, action: Action) -> None:
    assert {v.action for v in fit(RandomScreen(rate=rate)).screen(inputs(0, 50))} == {action}


@pytest.mark.parametrize("plugin", [Onion(), OracleScreen(), RandomScreen()])
def test_no_input_gives_no_verdict(plugin: Screen) -> None:
    assert fit(plugin, inputs(0, 5)).screen([]) == []


@pytest.mark.parametrize(
    ("cls", "parameters"),
    [
        (Onion, {"order": 0}),
        (Onion, {"false_positive_rate": 0}),
        (Onion, {"folds": 1}),
        (Onion, {"fpr": 0.1}),
        (RandomScreen, {"rate": 2}),
    ],
)
def test_impossible_parameters_are_refused(cls: type[Screen], parameters: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        build(cls, parameters)


@pytest.mark.parametrize("plugin", [Onion(order=3, threshold=0.0), Onion(), RandomScreen(rate=0.1), OracleScreen()])
def test_parameters_round_trip(plugin: Screen) -> None:
    assert build(type(plugin), parameters_of(plugin)) == plugin
