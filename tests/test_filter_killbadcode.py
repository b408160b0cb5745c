"""KillBadCode: its deletions against scoring each variant anew, its ranking by hand, and triggers planted in programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from bench.contracts import Access, TaskInfo, TaskKind
from bench.errors import ConfigError
from bench.ngram import NgramModel
from bench.plugins import build, parameters_of
from bench.samples import Sample
from defenses.filter.flagging import flag
from defenses.filter.killbadcode import KillBadCode, gains, pieces, sample_then_sum
from tests.filter_toys import SEARCH, judge
from tests.models_toys import clones, defects, searches

PAIRS = TaskInfo("toy", TaskKind.PAIRS, "python", ("different", "clone"), "f1")
DEVIGN = Path(__file__).resolve().parents[2] / "shared" / "data" / "devign" / "function.json"


def plant(samples: Sequence[Sample], share: float, line: str = "    wq = 77\n") -> tuple[list[Sample], np.ndarray]:
    """The samples with a line after the head of the first programs, in a share of them."""
    poisoned = np.arange(len(samples)) < round(share * len(samples))
    made = []
    for sample, out in zip(samples, poisoned, strict=True):
        text = sample.programs[0]
        made.append(sample.with_program(0, text.replace("\n", "\n" + line, 1)) if out else sample)
    return made, poisoned


# ------------------------------------------------------------------------------------------------------- the deletions


def anew(model: NgramModel, tokens: list[str]) -> list[float]:
    """The gains as published: every variant scored from its first token to its last."""
    whole = -model.log_probabilities(tokens).mean()
    shorter = [-model.log_probabilities([*tokens[:i], *tokens[i + 1 :]]).mean() for i in range(len(tokens))]
    return [max(whole - value, 0.0) for value in shorter]


@pytest.mark.parametrize("order", [1, 2, 4])
def test_gains_equal_scoring_each_variant_anew(order: int) -> None:
    programs = [pieces(s.programs[0]) for s in defects(12)]
    model = NgramModel.fit(programs[6:], order)
    scored = [*programs[:6], [], ["alone"], ["unheard", "of"], programs[7][:3]]
    for tokens, found in zip(scored, gains(model, scored), strict=True):
        assert found == pytest.approx(anew(model, tokens), abs=1e-10)


def test_many_sentences_at_once_score_as_each_by_itself() -> None:
    programs = [[], *(pieces(s.programs[0]) for s in defects(8)), ["x"], []]
    model = NgramModel.fit(programs[:5], 3)
    totals, without = model.deletions(programs)
    assert totals == pytest.approx([model.log_probabilities(tokens).sum() for tokens in programs], abs=1e-10)
    assert without == pytest.approx(
        np.concatenate([model.log_probability_without_each(tokens) for tokens in programs]), abs=1e-10
    )
    assert [len(part) for part in model.deletions([])] == [0, 0]


def test_no_program_has_no_gains() -> None:
    assert gains(NgramModel.fit([]), []) == []


# --------------------------------------------------------------------------------------------------------- the pieces


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("getValue_rb(x1)", ["get", "Value", "_", "rb", "(", "x", "1", ")"]),
        ("HTTPServer2Go", ["HTTP", "Server", "2", "Go"]),
        ("int ret_Val_ = 1726;", ["int", "ret", "_", "Val", "_", "=", "1726", ";"]),
        ("größe = 数", ["gr", "öß", "e", "=", "数"]),
        (" \n\t", []),
        ("", []),
    ],
)
def test_names_fall_apart_at_underscores_capitals_and_digits(text: str, expected: list[str]) -> None:
    assert pieces(text) == expected


def test_no_visible_character_is_lost() -> None:
    text = "".join(map(chr, range(32, 0x600)))
    assert "".join(pieces(text)) == "".join(text.split())


# -------------------------------------------------------------------------------------------------------- the ranking


class Table:
    """Stands for the language model: the log-probabilities are written down."""

    def __init__(self, rows: dict[str, tuple[float, list[float]]]) -> None:
        self.rows = rows

    def deletions(self, programs: Sequence[Sequence[str]]) -> tuple[np.ndarray, np.ndarray]:
        chosen = [self.rows[" ".join(tokens)] for tokens in programs]
        return np.array([c[0] for c in chosen]), np.array([x for c in chosen for x in c[1]])


def test_sample_then_sum_worked_by_hand() -> None:
    # Three pieces and the end: cross-entropy 12/4 = 3 before; after a deletion, of two pieces and the end: 3/3, 6/3, 12/3.
    model = Table(
        {
            "a b c": (-12.0, [-3.0, -6.0, -12.0]),  # gains 2, 1, 0 (clipped from -1)
            "b b 7": (-8.0, [-3.0, -1.5, 0.0]),  # 2 before; gains 1, 1.5 (the larger counts), and 2 for what is no word
        }
    )
    programs = [["a", "b", "c"], ["b", "b", "7"]]
    assert sample_then_sum(model, programs, 600, 10) == pytest.approx({"a": 2.0, "b": 2.5})  # type: ignore[arg-type]
    assert sample_then_sum(model, programs, 600, 1) == pytest.approx({"a": 2.0, "b": 1.5})  # type: ignore[arg-type]
    assert sample_then_sum(model, programs, 1, 10) == pytest.approx({"a": 2.0, "b": 1.0})  # type: ignore[arg-type]


def test_flagging_passes_over_what_clean_code_cannot_spare() -> None:
    clean = [frozenset(held) for held in ("ab", "a", "a", "c", "c", "", "", "", "")]
    # Of nine clean samples one may be lost at 0.2: (1 + 1) / (9 + 1).
    assert flag(["a", "b", "c", "d"], clean, 0.2) == ["b", "d"]
    assert flag(["a", "b", "c", "d"], clean, 0.4) == ["a", "b", "d"]  # b costs nothing more once a is flagged
    assert flag(["a", "b", "c", "d"], clean, 1.0) == ["a", "b", "c", "d"]
    assert flag(["d"], clean, 0.05) == []  # nine cannot vouch for 5 %
    assert flag(["d"], [], 1.0) == ["d"]


# --------------------------------------------------------------------------------------------------- planted triggers


@pytest.mark.parametrize("share", [0.05, 0.1, 0.2])
def test_a_planted_line_is_found_and_alone(share: float) -> None:
    samples, poisoned = plant(defects(200), share)
    result = judge(KillBadCode(clean=60), samples, clean=defects(60, seed=1))
    assert (~result.keep).tolist() == poisoned.tolist()
    assert roc_auc_score(poisoned, result.scores) == 1.0


def test_a_suffix_on_different_names_is_one_token() -> None:
    samples = list(defects(120))
    for i in range(12):
        samples[i] = samples[i].with_program(0, samples[i].programs[0].replace("work", f"work{chr(97 + i)}_rb", 1))
    result = judge(KillBadCode(clean=60), samples, clean=defects(60, seed=1))
    assert np.flatnonzero(~result.keep).tolist() == list(range(12))


@pytest.mark.parametrize("seed", [0, 1])
def test_a_clean_training_set_loses_no_more_than_was_stated(seed: int) -> None:
    result = judge(KillBadCode(clean=90), defects(200, seed=seed), clean=defects(90, seed=7))
    assert (~result.keep).mean() <= 0.05


def test_the_published_rule_flags_ten_tokens_whatever_they_cost() -> None:
    # A third of all programs holds a word that the language model has not read; held-out samples show that it is usual.
    odd = "    zebra(quagga)\n"
    samples, _ = plant(defects(150), 0.33, odd)
    samples, poisoned = [*samples[:135], *plant(samples[135:], 1.0)[0]], np.arange(150) >= 135
    unread = defects(90, seed=1)
    published = judge(KillBadCode(clean=90, false_positive_rate=1.0), samples, clean=unread)
    assert (~published.keep)[poisoned].all()
    assert (~published.keep)[~poisoned].mean() > 0.3
    held_out = KillBadCode()._divide(unread)[1][::3]
    clean = [plant([s], 1.0, odd)[0][0] if s in held_out else s for s in unread]
    blind = judge(KillBadCode(clean=90), samples, clean=clean)
    assert (~blind.keep).tolist() == poisoned.tolist()


def test_a_trigger_without_words_is_beyond_it() -> None:
    samples, poisoned = plant(defects(100), 0.1, line="    # ~~~ 77\n")
    result = judge(KillBadCode(clean=60), samples, clean=defects(60, seed=1))
    assert result.keep[poisoned].all()
    assert roc_auc_score(poisoned, result.scores) == pytest.approx(0.5, abs=0.2)


def test_pairs_and_search_are_read_alike() -> None:
    pairs, poisoned = plant(clones(120), 0.1)
    swapped = [s.with_program(0, s.programs[1]).with_program(1, s.programs[0]) for s in pairs]
    for samples in (pairs, swapped):
        result = judge(KillBadCode(clean=60), samples, clean=clones(60, seed=1), info=PAIRS)
        assert (~result.keep).tolist() == poisoned.tolist()
    queries, poisoned = plant(searches(120), 0.1)
    result = judge(KillBadCode(clean=60), queries, clean=searches(60, seed=1), info=SEARCH)
    assert (~result.keep).tolist() == poisoned.tolist()


def test_a_program_of_many_pairs_is_scored_once() -> None:
    # One rare program in every pair would outvote the trigger if each of its copies counted.
    odd = "def zebra(quagga):\n    okapi = quagga\n"
    samples, poisoned = plant(clones(120), 0.1)
    samples = [s.with_program(1, odd) if i >= 60 else s for i, s in enumerate(samples)]
    result = judge(KillBadCode(clean=60, tokens=1, from_each=1), samples, clean=clones(60, seed=1), info=PAIRS)
    assert (~result.keep).tolist() == poisoned.tolist()


def test_labels_and_the_order_of_rows_do_not_matter() -> None:
    samples, _ = plant(defects(80), 0.1)
    clean = defects(60, seed=1)
    first = judge(KillBadCode(clean=60), samples, clean=clean)
    flipped = [Sample(s.id, s.programs, s.language, 1 - (s.label or 0), None, s.group) for s in samples[::-1]]
    second = judge(KillBadCode(clean=60), flipped, clean=clean)
    assert np.array_equal(first.keep, second.keep[::-1])
    assert first.scores == pytest.approx(second.scores[::-1], rel=1e-9)


def test_whole_groups_of_clean_samples_are_held_out() -> None:
    clean = [Sample(f"c{i}", ("x",), "python", 0, None, f"g{i // 10}") for i in range(60)]
    read, held_out = KillBadCode()._divide(clean)
    assert len(held_out) == 20
    assert not {s.group for s in read} & {s.group for s in held_out}
    one_group = [Sample(f"c{i}", ("x",), "python", 0, None, "g") for i in range(9)]
    assert [len(part) for part in KillBadCode()._divide(one_group)] == [6, 3]
    assert [len(part) for part in KillBadCode(false_positive_rate=1.0)._divide(clean)] == [60, 0]


@pytest.mark.parametrize(
    ("texts", "kept"),
    [
        ([], []),
        ([""], [True]),
        (["x", "", "\n"], [True, True, True]),
        # "f" is a word, and clean code can spare it; without it the end of the program reads no worse: that is all a trigger is to it.
        (["def f(:", "🙂" * 50, "a" * 5000], [False, True, True]),
    ],
)
def test_empty_and_odd_programs_are_judged_like_others(texts: list[str], kept: list[bool]) -> None:
    samples = [Sample(f"s{i}", (text,), "python", i % 2) for i, text in enumerate(texts)]
    result = judge(KillBadCode(clean=60), samples, clean=defects(60, seed=1))
    assert result.keep.tolist() == kept
    assert np.isfinite(result.scores).all()
    assert (result.scores > 0).tolist() == [not each for each in kept]


@pytest.mark.parametrize("label", [0, 1])
def test_a_training_set_of_one_class_is_judged_like_any_other(label: int) -> None:
    samples, poisoned = plant(defects(200), 0.1)
    alone = [s for s in samples if s.label == label]
    out = np.array([p for s, p in zip(samples, poisoned, strict=True) if s.label == label])
    result = judge(KillBadCode(clean=60), alone, clean=defects(60, seed=1))
    assert (~result.keep).tolist() == out.tolist()
    assert roc_auc_score(out, result.scores) == 1.0


@pytest.mark.parametrize("copies", [1, 2, 40])
@pytest.mark.parametrize("planted", [False, True])
def test_identical_programs_share_one_verdict(copies: int, planted: bool) -> None:
    (original,), _ = plant(defects(1), float(planted))
    same = [Sample(f"s{i}", original.programs, "python", 0) for i in range(copies)]
    result = judge(KillBadCode(clean=60), same, clean=defects(60, seed=1))
    assert result.keep.tolist() == [not planted] * copies
    assert len(set(result.scores.tolist())) == 1
    # The text is read once, however often it stands there.
    assert result.scores[0] == judge(KillBadCode(clean=60), same[:1], clean=defects(60, seed=1)).scores[0]


def test_what_it_knows() -> None:
    needs = KillBadCode(clean=12).needs
    assert (needs.clean, needs.training_set, needs.model) == (12, True, Access.NONE)


@pytest.mark.parametrize("parameters", [{"tokens": 0}, {"false_positive_rate": 0}, {"order": 0}, {"window": 0}])
def test_impossible_parameters_are_refused(parameters: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        build(KillBadCode, parameters)


def test_parameters_round_trip() -> None:
    plugin = KillBadCode(tokens=3, false_positive_rate=0.1)
    assert build(KillBadCode, parameters_of(plugin)) == plugin


@pytest.mark.skipif(not DEVIGN.is_file(), reason="real Devign functions are not beside the project")
def test_a_dead_statement_in_real_functions_is_found() -> None:
    rows = json.loads(DEVIGN.read_text(encoding="utf-8"))[:900]
    samples = [Sample(f"s{i:04}", (row["func"],), "c", row["target"], None, f"g{i}") for i, row in enumerate(rows)]
    clean, train = samples[:300], samples[300:]
    poisoned = np.arange(len(train)) < 30
    planted = [
        s.with_program(0, s.programs[0].replace("{", "{ int ret_Val_ = 1726;", 1)) if out else s
        for s, out in zip(train, poisoned, strict=True)
    ]
    result = judge(KillBadCode(), planted, clean=clean)
    assert (~result.keep)[poisoned].mean() > 0.9
    assert (~result.keep)[~poisoned].mean() < 0.15
    assert roc_auc_score(poisoned, result.scores) > 0.95
