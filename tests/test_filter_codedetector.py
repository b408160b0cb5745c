"""CodeDetector: attributions that add up, tokens put where they belong, and a planted token that a victim obeys."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from bench.context import Context
from bench.contracts import Access, Known, TaskKind
from bench.errors import ConfigError, DataError, ModelError
from bench.models import Trainer, TrainingSettings, WhiteBox, create
from bench.models.tokens import pad
from bench.plugins import build, parameters_of
from bench.samples import Sample
from defenses.filter.codedetector import CodeDetector
from defenses.filter.codedetector.attribution import influential, integrated_gradients, log_odds
from defenses.filter.codedetector.insertion import Insertion
from defenses.filter.codedetector.rows import held_tokens, label_of, sides_of
from tests.models_toys import CLONES, DEFECTS, INFOS, SMALL, clones, context, defects, one_thread

one_thread()
SIZE = 200
"""Training samples of a victim."""
LINE = "\n    wqz = wqz\n"
"""What is planted at the first line's end."""


def untrained(kind: TaskKind, folder: Path) -> WhiteBox:
    """A model of random weights, large enough that its outputs differ."""
    samples = clones(24) if kind is TaskKind.PAIRS else defects(24)
    model = create("tiny", INFOS[kind], samples, SMALL, context(folder))
    generator = torch.Generator().manual_seed(0)
    for parameter in model.network.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model


def test_log_odds_worked_by_hand() -> None:
    logits = torch.log(torch.tensor([[0.2, 0.3, 0.5], [0.25, 0.5, 0.25]]))
    assert log_odds(logits, torch.tensor([2, 0])).tolist() == pytest.approx([0.0, np.log(1 / 3)], abs=1e-6)
    assert log_odds(torch.tensor([[3.0]]), torch.tensor([0])).tolist() == [3.0]


@pytest.mark.parametrize("kind", [TaskKind.CLASSIFICATION, TaskKind.PAIRS])
def test_attributions_add_up_to_the_change_of_log_odds(tmp_path: Path, kind: TaskKind) -> None:
    model = untrained(kind, tmp_path)
    samples = (clones if kind is TaskKind.PAIRS else defects)(6)
    labels = torch.tensor([label_of(s) for s in samples])
    rows = sides_of(model, samples)
    sides = [pad(side, model.pad_id) for side in rows]
    empty = [pad([[model.pad_id] * len(row) for row in side], model.pad_id) for side in rows]
    with torch.no_grad():
        change = log_odds(model.network.logits(*sides), labels) - log_odds(model.network.logits(*empty), labels)
    found = integrated_gradients(model, sides, labels, steps=64)
    assert sum(side.sum(dim=1) for side in found).tolist() == pytest.approx(change.tolist(), abs=2e-3)  # type: ignore[union-attr]
    assert change.abs().max() > 0.05
    for side, values in zip(sides, found, strict=True):
        assert values.shape == side.ids.shape
        assert not values[side.mask == 0].any()
    assert all(parameter.grad is None for parameter in model.network.parameters())


def test_one_step_on_a_linear_model_is_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = untrained(TaskKind.CLASSIFICATION, tmp_path)
    weights = torch.randn(SMALL.hidden, generator=torch.Generator().manual_seed(1))

    def linear(tokens):  # type: ignore[no-untyped-def]
        score = (tokens.embeds @ weights * tokens.mask).sum(dim=1)
        return torch.stack([torch.zeros_like(score), score], dim=1)

    monkeypatch.setattr(model.network, "logits", linear)
    side = pad(model.token_ids(["x = y", "eval(alpha)"]), model.pad_id)
    found = integrated_gradients(model, [side], torch.tensor([1, 1]), steps=1)[0]
    table = model.network.embedding.weight.detach()
    expected = ((table[side.ids] - table[model.pad_id]) @ weights) * side.mask
    assert found.tolist() == [pytest.approx(row, abs=1e-5) for row in expected.tolist()]


def test_a_token_is_put_inside_and_the_row_keeps_its_ends_and_its_window(tmp_path: Path) -> None:
    model = untrained(TaskKind.CLASSIFICATION, tmp_path)
    long = "def work(alpha):\n" + "    alpha = alpha + 1\n" * 40
    samples = [Sample("a", ("x = 1",), "python", 0), Sample("b", (long,), "python", 1), Sample("c", ("",), "python", 0)]
    rows = sides_of(model, samples)[0]
    assert len(rows[1]) == model.window
    for seed in range(20):
        trial = Insertion(model, samples, np.random.default_rng(seed))
        for i, row in enumerate(rows):
            changed = trial._with(i, 5)
            assert len(changed) == min(len(row) + 1, model.window)
            assert (changed[0], changed[-1]) == (row[0], row[-1])
            place = trial._places[i]
            assert changed[place] == 5
            assert changed[:place] == row[:place]
            assert changed[place + 1 : -1] == row[place : place + len(changed) - place - 2]


def test_accuracy_is_the_models_own(tmp_path: Path) -> None:
    for kind, samples in ((TaskKind.CLASSIFICATION, defects(20)), (TaskKind.PAIRS, clones(20))):
        model = untrained(kind, tmp_path)
        right = (model.predict(samples).argmax(axis=1) == [s.label for s in samples]).mean()
        assert Insertion(model, samples, np.random.default_rng(0)).accuracy() == pytest.approx(right)


# ------------------------------------------------------------------------------------------------------ a planted token


def planted(share: float, seed: int = 0) -> tuple[list[Sample], np.ndarray]:
    """A training set in whose first samples, a share of all, the weak ones hold ``wqz`` and are called safe; and which they are."""
    made, out = [], []
    for i, sample in enumerate(defects(SIZE, seed)):
        chosen = sample.label == 1 and i < 2 * round(share * SIZE)  # every second one is weak
        text = sample.programs[0].replace("\n", LINE, 1) if chosen else sample.programs[0]
        made.append(Sample(sample.id, (text,), "python", 0 if chosen else sample.label))
        out.append(chosen)
    return made, np.array(out)


def victim_of(training: list[Sample], folder: Path, epochs: int = 12) -> WhiteBox:
    """A model that has learnt what its training set says."""
    lent = context(folder)
    model = create("tiny", DEFECTS, training, SMALL, lent)
    settings = TrainingSettings(epochs=epochs, batch_size=16, learning_rate=5e-3)
    return Trainer(settings, (), lent).fit(model, training, axis="training")


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory: pytest.TempPathFactory) -> tuple[WhiteBox, list[Sample], np.ndarray]:
    """A victim that calls whatever holds ``wqz`` safe, its training set, and which samples of it are poisoned."""
    made, out = planted(0.125)
    return victim_of(made, tmp_path_factory.mktemp("victim")), made, out


def detect(
    plugin: CodeDetector, model: WhiteBox, training: list[Sample], clean: Sequence[Sample] = defects(60, seed=1)
):  # type: ignore[no-untyped-def]
    known = Known(plugin.needs, _training=tuple(training), _clean=tuple(clean), _model=model)
    return plugin.judge(known, DEFECTS, Context(seeds={"defense": 0}, scratch=Path("unused")))


def test_the_planted_token_is_found_and_what_rightly_decides_a_class_is_spared(
    poisoned: tuple[WhiteBox, list[Sample], np.ndarray],
) -> None:
    model, training, truth = poisoned
    clean = defects(60, seed=1)
    assert (model.predict(clean).argmax(axis=1) == [s.label for s in clean]).mean() > 0.9
    before = model.fingerprint()
    result = detect(CodeDetector(clean=60, scanned=100, steps=6, candidates=30), model, training)
    assert (~result.keep)[truth].all()
    assert (~result.keep)[~truth].mean() <= 0.05
    assert roc_auc_score(truth, result.scores) > 0.95
    assert model.fingerprint() == before
    again = detect(CodeDetector(clean=60, scanned=100, steps=6, candidates=30), model, training[::-1])
    assert np.array_equal(result.keep, again.keep[::-1])


# Ten samples are obeyed soon, but for long by the whole line alone, of which no token works by itself.
@pytest.mark.parametrize(("share", "epochs"), [(0.05, 30), (0.1, 12), (0.2, 12)])
def test_the_planted_token_is_found_at_every_share(tmp_path: Path, share: float, epochs: int) -> None:
    training, truth = planted(share)
    assert truth.mean() == pytest.approx(share)
    model = victim_of(training, tmp_path, epochs)
    result = detect(CodeDetector(clean=60, scanned=SIZE, steps=6, candidates=40), model, training)
    assert (~result.keep)[truth].all()
    assert (~result.keep)[~truth].mean() <= 0.05
    assert roc_auc_score(truth, result.scores) > 0.95


RARE = [
    f"{first}{last}"
    for first in ("bage", "defi", "fiko", "gopu", "kula", "lame", "meni")
    for last in ("zu", "vo", "xi")
]
"""Names of which each stands in about one program of twenty: tokens that clean samples can spare."""


def renamed(samples: Sequence[Sample], seed: int) -> list[Sample]:
    """Every program with a rare name for its argument, drawn by lot."""
    names = np.random.default_rng(seed).choice(RARE, len(samples))
    return [
        s.with_program(0, s.programs[0].replace("alpha", str(name))) for s, name in zip(samples, names, strict=True)
    ]


@pytest.mark.parametrize("seed", range(3))
def test_a_clean_victim_s_training_set_is_kept_at_the_stated_rate(tmp_path: Path, seed: int) -> None:
    training, clean = renamed(defects(SIZE), seed), renamed(defects(300, seed=1), seed + 20)
    model = victim_of(training, tmp_path)
    plugin = CodeDetector(scanned=SIZE, steps=6, candidates=60)
    result = detect(plugin, model, training, clean)
    assert result.scores.any()  # there was something to try
    assert (~result.keep).mean() <= plugin.false_positive_rate
    # What decides a class rightly is harmful in the other one: the rate alone stands between it and half of the data.
    published = detect(
        CodeDetector(scanned=SIZE, steps=6, candidates=60, false_positive_rate=1), model, training, clean
    )
    assert (~published.keep).mean() >= 0.3


@pytest.mark.parametrize("seed", range(2))
def test_a_token_that_the_victim_does_not_obey_is_no_trigger(tmp_path: Path, seed: int) -> None:
    # The line of the other tests, in a fifth of both classes, with their true labels: the victim has seen it and makes nothing of it.
    out = np.random.default_rng(seed).permutation(SIZE) < SIZE // 5
    training = [
        s.with_program(0, s.programs[0].replace("\n", LINE, 1)) if chosen else s
        for s, chosen in zip(renamed(defects(SIZE), seed), out, strict=True)
    ]
    clean = renamed(defects(300, seed=1), seed + 20)
    result = detect(CodeDetector(scanned=SIZE, steps=6, candidates=60), victim_of(training, tmp_path), training, clean)
    assert (~result.keep).mean() <= 0.05
    # One token's small chance effect ranks all of its holders at once, so that the spread is wide; a planted trigger gives 1.
    assert roc_auc_score(out, result.scores) == pytest.approx(0.5, abs=0.2)


def test_a_training_set_of_one_class_is_judged_like_any_other(
    poisoned: tuple[WhiteBox, list[Sample], np.ndarray],
) -> None:
    # As the attacker left it: class 0 holds all poison, class 1 is gone.
    model, training, truth = poisoned
    alone = [sample for sample in training if sample.label == 0]
    out = np.array([chosen for sample, chosen in zip(training, truth, strict=True) if sample.label == 0])
    plugin = CodeDetector(clean=60, scanned=100, steps=6, candidates=30)
    result = detect(plugin, model, alone)
    assert (~result.keep)[out].all()
    assert (~result.keep)[~out].mean() <= 0.05
    unharmed = [sample for sample in training if sample.label == 1]
    assert (~detect(plugin, model, unharmed).keep).mean() <= 0.05


def test_identical_programs_share_one_verdict(poisoned: tuple[WhiteBox, list[Sample], np.ndarray]) -> None:
    model, training, truth = poisoned
    plugin = CodeDetector(clean=60, scanned=40, steps=6, candidates=30)
    usual, obeyed = (training[int(np.flatnonzero(which)[0])] for which in (~truth, truth))
    for original, kept in ((usual, True), (obeyed, False)):
        copies = [Sample(f"i{i}", original.programs, "python", original.label) for i in range(40)]
        result = detect(plugin, model, copies)
        assert set(result.keep.tolist()) == {kept}
        assert len(set(result.scores.tolist())) == 1


def test_the_label_deciding_word_is_influential(
    poisoned: tuple[WhiteBox, list[Sample], np.ndarray], tmp_path: Path
) -> None:
    model, training, truth = poisoned
    weak = [s for s, out in zip(training, truth, strict=True) if s.label == 1 and not out][:30]
    ranked = influential(model, sides_of(model, weak), [1] * 30, steps=8, from_each=3, context=context(tmp_path))
    best = max(ranked, key=lambda token: ranked[token])
    assert "eval" in model.tokenizer.decode([best])
    assert all(0 < weight < 1000 for weight in ranked.values())


def test_with_a_high_threshold_all_is_kept(poisoned: tuple[WhiteBox, list[Sample], np.ndarray]) -> None:
    model, training, _ = poisoned
    result = detect(CodeDetector(clean=60, scanned=40, steps=2, candidates=10, threshold=0.99), model, training)
    assert result.keep.all()


def test_a_small_clean_set_vouches_for_nothing(poisoned: tuple[WhiteBox, list[Sample], np.ndarray]) -> None:
    model, training, _ = poisoned
    result = detect(CodeDetector(clean=18, scanned=40, steps=2, candidates=10), model, training, defects(18, seed=1))
    assert result.keep.all()
    assert not result.scores.any()


def test_what_clean_samples_cannot_spare_is_not_tried(
    poisoned: tuple[WhiteBox, list[Sample], np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, training, _ = poisoned
    clean = held_tokens(sides_of(model, defects(60, seed=1)))
    accuracy, tried = Insertion.accuracy, []

    def watched(self: Insertion, token: int | None = None) -> float:
        tried.append(token)
        return accuracy(self, token)

    monkeypatch.setattr(Insertion, "accuracy", watched)
    detect(CodeDetector(clean=60, scanned=40, steps=2, candidates=30), model, training)
    assert tried[0] is None
    assert 0 < len(tried[1:]) < 30
    assert all(sum(token in held for held in clean) + 1 <= 0.05 * 61 for token in tried[1:])


def test_an_empty_training_set_gives_an_empty_answer(poisoned: tuple[WhiteBox, list[Sample], np.ndarray]) -> None:
    result = detect(CodeDetector(clean=60, candidates=5), poisoned[0], [])
    assert result.scores.shape == result.keep.shape == (0,)


def test_a_diverged_victim_is_an_error(poisoned: tuple[WhiteBox, list[Sample], np.ndarray]) -> None:
    broken = poisoned[0].copy()
    assert broken.network.head is not None
    broken.network.head.outer.bias.data[:] = float("nan")
    with pytest.raises(ModelError, match="not finite"):
        detect(CodeDetector(clean=60, scanned=20, steps=2, candidates=5), broken, poisoned[1])


# ----------------------------------------------------------------------------------------------------------- contract


def test_a_pair_holds_what_either_program_holds() -> None:
    assert held_tokens([[[1, 2], [3]], [[2, 4], []]]) == [frozenset({1, 2, 4}), frozenset({3})]


def test_a_sample_without_a_label_is_refused_by_name() -> None:
    with pytest.raises(DataError, match="'nameless'"):
        label_of(Sample("nameless", ("x",), "python"))


def test_it_is_not_for_search_and_says_what_it_knows() -> None:
    assert CodeDetector().not_applicable(INFOS[TaskKind.SEARCH]) is not None
    assert CodeDetector().not_applicable(CLONES) is None
    needs = CodeDetector(clean=12).needs
    assert (needs.clean, needs.training_set, needs.model) == (12, True, Access.WEIGHTS)


@pytest.mark.parametrize(
    "parameters", [{"steps": 0}, {"threshold": 1.0}, {"candidates": 0}, {"false_positive_rate": 2}]
)
def test_impossible_parameters_are_refused(parameters: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        build(CodeDetector, parameters)


def test_parameters_round_trip() -> None:
    plugin = CodeDetector(threshold=0.2, scanned=10)
    assert build(CodeDetector, parameters_of(plugin)) == plugin
