"""Filters: spectral signatures against numpy's SVD and on clusters whose right answer is certain, and the two controls."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from bench.context import Context
from bench.contracts import Access, Filter, Known, Suspicion, TaskInfo, TaskKind
from bench.errors import ConfigError, ModelError
from bench.models import ModelSettings, create
from bench.plugins import Registry, build, parameters_of
from bench.samples import Sample
from defenses.filter.budget import keep_all_but_the_most_suspicious, ranks_within_labels
from defenses.filter.oracle import OracleFilter
from defenses.filter.random import RandomFilter
from defenses.filter.representations import representations
from defenses.filter.spectral_signatures import SpectralSignatures, spectral_scores

INFO = TaskInfo("toy", TaskKind.CLASSIFICATION, "python", ("safe", "weak"), "accuracy")
SEARCH = TaskInfo("toy", TaskKind.SEARCH, "python", (), "mrr")


class FeaturesOnly:
    """Stands for a white-box model: gives each sample the representation that the test chose for it."""

    def __init__(self, samples: list[Sample], features: NDArray[np.float64]) -> None:
        self.rows = dict(zip([s.id for s in samples], features.astype(np.float32), strict=True))
        self.asked: list[dict[str, Any]] = []

    def features(self, samples: tuple[Sample, ...], **how: Any) -> NDArray[np.float32]:
        self.asked.append(how)
        return np.stack([self.rows[s.id] for s in samples])


def context(seed: int = 0) -> Context:
    return Context(seeds={"defense": seed}, scratch=Path("unused"))


def samples_of(labels: Sequence[int | None]) -> list[Sample]:
    return [Sample(f"s{i:04}", (f"x = {i}",), "python", label) for i, label in enumerate(labels)]


def judge(
    plugin: Filter,
    samples: list[Sample],
    features: NDArray[np.float64] | None = None,
    poisoned: frozenset[str] = frozenset(),
    info: TaskInfo = INFO,
    seed: int = 0,
) -> Suspicion:
    model = FeaturesOnly(samples, features) if features is not None else None
    known = Known(
        plugin.needs,
        _training=tuple(samples) if plugin.needs.training_set else None,
        _model=cast(Any, model) if plugin.needs.model is Access.WEIGHTS else None,
        _poisoned=poisoned if plugin.needs.truth else None,
    )
    return plugin.judge(known, info, context(seed))


def two_clusters(
    share: float, shift: float = 4.0, n: int = 400, d: int = 32
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """One class: unit Gaussian noise, and a share of it moved along one random direction."""
    rng = np.random.default_rng(7)
    poisoned = np.arange(n) < round(share * n)
    direction = rng.normal(size=d)
    rows = rng.normal(size=(n, d))
    rows[poisoned] += shift * direction / np.linalg.norm(direction)
    return rows, poisoned


def transposed_scores(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """The widely copied defect: a row of the eigenvector matrix where the eigenvectors are its columns."""
    centred = rows - rows.mean(axis=0)
    values, vectors = np.linalg.eigh(centred.T @ centred)
    return np.asarray((centred @ vectors[int(values.argmax())]) ** 2)


# ------------------------------------------------------------------------------------------------------ spectral signatures


@pytest.mark.parametrize("vectors", [1, 2, 5, 50])
@pytest.mark.parametrize("shape", [(200, 24), (10, 24), (24, 24)])
def test_scores_equal_a_direct_singular_value_decomposition(shape: tuple[int, int], vectors: int) -> None:
    rows = np.random.default_rng(0).normal(size=shape) @ np.diag(np.linspace(1, 3, shape[1])) + 5
    centred = rows - rows.mean(axis=0)
    _, _, right = np.linalg.svd(centred, full_matrices=False)
    expected = ((centred @ right[:vectors].T) ** 2).sum(axis=1)
    assert spectral_scores(rows, vectors) == pytest.approx(expected, rel=1e-8, abs=1e-8)


def test_a_transposed_decomposition_would_be_noticed() -> None:
    rows, poisoned = two_clusters(0.05)
    assert roc_auc_score(poisoned, spectral_scores(rows)) > 0.95
    assert roc_auc_score(poisoned, transposed_scores(rows)) < 0.8
    assert not np.allclose(spectral_scores(rows), transposed_scores(rows))


@pytest.mark.parametrize("share", [0.02, 0.05, 0.1, 0.2])
def test_a_separated_cluster_is_found_at_any_small_share(share: float) -> None:
    rows, poisoned = two_clusters(share, shift=8.0)
    assert roc_auc_score(poisoned, spectral_scores(rows)) > 0.98


def test_poison_that_leaves_no_trace_is_not_found() -> None:
    rows, poisoned = two_clusters(0.2, shift=0.0, n=4000)
    assert roc_auc_score(poisoned, spectral_scores(rows)) == pytest.approx(0.5, abs=0.05)


def test_two_equal_halves_cannot_be_told_apart_by_squared_projections() -> None:
    rows, poisoned = two_clusters(0.5, shift=8.0, n=2000)
    assert roc_auc_score(poisoned, spectral_scores(rows)) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("shape", [(0, 4), (1, 4), (2, 4), (5, 1), (3, 0)])
def test_tiny_classes_get_finite_scores(shape: tuple[int, int]) -> None:
    scores = spectral_scores(np.ones(shape))
    assert scores.shape == (shape[0],)
    assert not scores.any()


def test_identical_points_are_not_suspicious() -> None:
    rows = np.tile(np.random.default_rng(0).normal(size=16).astype(np.float32), (50, 1))
    assert not spectral_scores(rows).any()


def test_each_observed_class_is_judged_alone() -> None:
    # Class 1 lies far from class 0; only within class 0 is there a small cluster aside.
    rng = np.random.default_rng(0)
    samples = samples_of([0] * 200 + [1] * 200)
    rows = rng.normal(size=(400, 16))
    rows[200:] += 30
    rows[:15, 3] += 8
    order = rng.permutation(400)
    shuffled = [samples[i] for i in order]
    result = judge(SpectralSignatures(), shuffled, rows[order])
    removed = {s.id for s, keep in zip(shuffled, result.keep, strict=True) if not keep}
    assert {s.id for s in samples[:15]} <= removed
    assert len(removed) == 30
    for label in (0, 1):
        assert sum(s.label == label and s.id in removed for s in samples) == 15
    for label in (0, 1):
        inside = [i for i, s in enumerate(shuffled) if s.label == label]
        raw = spectral_scores(rows[order][inside].astype(np.float32))
        assert np.array_equal(np.argsort(result.scores[inside]), np.argsort(raw))
        assert sorted(result.scores[inside]) == pytest.approx((np.arange(200) + 0.5) / 200)


@pytest.mark.parametrize(
    ("rate", "n", "removed"), [(0.05, 40, 3), (0.05, 13, 0), (0.05, 14, 1), (0.1, 100, 15), (0.0, 100, 0), (0.6, 10, 9)]
)
def test_the_budget_is_one_and_a_half_times_the_assumed_rate(rate: float, n: int, removed: int) -> None:
    rows = np.random.default_rng(0).normal(size=(n, 4))
    result = judge(SpectralSignatures(assumed_rate=rate), samples_of([0] * n), rows)
    assert (~result.keep).sum() == removed
    if removed:
        assert result.scores[~result.keep].min() >= result.scores[result.keep].max()


def test_in_search_the_length_of_a_vector_says_nothing() -> None:
    rows, _ = two_clusters(0.05, shift=8.0)
    lengths = np.exp(np.random.default_rng(1).normal(size=(400, 1)) * 2)
    samples = samples_of([None] * 400)
    plain, stretched = (judge(SpectralSignatures(), samples, each, info=SEARCH) for each in (rows, rows * lengths))
    assert np.array_equal(plain.keep, stretched.keep)
    assert plain.scores == pytest.approx(stretched.scores, abs=0.02)  # rounding may swap neighbours
    labelled = samples_of([0] * 400)
    assert not np.array_equal(*(judge(SpectralSignatures(), labelled, each).keep for each in (rows, rows * lengths)))


@pytest.mark.parametrize("pooling", ["head", "mean"])
def test_vectors_of_search_and_no_others_are_read_at_unit_length(pooling: Any) -> None:
    samples, rows = samples_of([0, 0, 0]), np.array([[3.0, 4.0], [0.0, 0.0], [0.0, 1e-6]])
    model = cast(Any, FeaturesOnly(samples, rows))
    read = representations(model, samples, SEARCH, -1, pooling, "x")
    assert read.dtype == np.float32
    assert read == pytest.approx(np.array([[0.6, 0.8], [0.0, 0.0], [0.0, 1.0]]), abs=1e-6)
    assert np.array_equal(representations(model, samples, INFO, -1, pooling, "x"), rows.astype(np.float32))


def test_search_is_one_class_of_programs() -> None:
    rows, poisoned = two_clusters(0.05, shift=8.0)
    result = judge(SpectralSignatures(), samples_of([None] * 400), rows, info=SEARCH)
    assert (~result.keep).sum() == 30
    assert not result.keep[poisoned].any()


def test_the_order_of_rows_does_not_matter_even_for_ties() -> None:
    samples = samples_of([0] * 40 + [1] * 3)
    rows = np.repeat([[0.0], [1.0]], [30, 13], axis=0)
    forward = judge(SpectralSignatures(), samples, rows)
    backward = judge(SpectralSignatures(), samples[::-1], rows[::-1])
    assert np.array_equal(forward.keep, backward.keep[::-1])
    assert np.allclose(forward.scores, backward.scores[::-1])


@pytest.mark.parametrize("labels", [[], [0], [0, 1], [1, 1]])
def test_tiny_training_sets_are_kept_whole(labels: list[int | None]) -> None:
    samples = samples_of(labels)
    for plugin in (SpectralSignatures(), RandomFilter(), OracleFilter()):
        result = judge(plugin, samples, np.ones((len(samples), 4)))
        assert result.scores.shape == result.keep.shape == (len(samples),)
        assert result.keep.all()


def test_the_asked_for_layer_and_pooling_are_read() -> None:
    samples = samples_of([0, 1])
    model = FeaturesOnly(samples, np.ones((2, 2)))
    plugin = SpectralSignatures(layer=1, pooling="mean")
    plugin.judge(Known(plugin.needs, _training=tuple(samples), _model=cast(Any, model)), INFO, context())
    assert model.asked == [{"layer": 1, "pooling": "mean"}]


def test_a_diverged_model_is_an_error_and_not_a_score() -> None:
    with pytest.raises(ModelError, match="not finite"):
        judge(SpectralSignatures(), samples_of([0, 0]), np.array([[np.nan], [1.0]]))


@pytest.mark.parametrize(
    "parameters", [{"vectors": 0}, {"assumed_rate": 0.7}, {"assumed_rate": -0.1}, {"pooling": "max"}]
)
def test_impossible_parameters_are_refused(parameters: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        build(SpectralSignatures, parameters)


# --------------------------------------------------------------------------------------------------- ranks within a class


def test_ranks_worked_by_hand() -> None:
    scores = np.array([10.0, -5.0, 30.0, 20.0, -5.0, 7.0])
    found = ranks_within_labels(scores, samples_of([0, 1, 0, 0, 1, 2]))
    assert found == pytest.approx([1 / 6, 1 / 2, 5 / 6, 1 / 2, 1 / 2, 1 / 2])
    assert ranks_within_labels(scores, samples_of([None] * 6)) == pytest.approx(np.array([7, 2, 11, 9, 2, 5]) / 12)
    assert ranks_within_labels(np.zeros(0), []).shape == (0,)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_the_most_suspicious_of_one_class_are_told_alike_at_any_scale_of_the_other(scale: float) -> None:
    scores = np.random.default_rng(0).permutation(400).astype(np.float64)
    scores[200:] *= scale
    samples = samples_of([0] * 200 + [1] * 200)
    poisoned = np.zeros(400, dtype=bool)
    poisoned[np.argsort(-scores[:200])[:20]] = True
    ranks = ranks_within_labels(scores, samples)
    assert roc_auc_score(poisoned[:200], ranks[:200]) == 1.0
    # Of the other class, each of the 20 outranks all but its own share: 1 - 0.1 / 2.
    other = np.concatenate([np.flatnonzero(poisoned), np.arange(200, 400)])
    assert roc_auc_score(poisoned[other], ranks[other]) == pytest.approx(0.95)
    assert roc_auc_score(poisoned, ranks) == pytest.approx((180 * 1.0 + 200 * 0.95) / 380)
    # A class in which all are alike stands between: what is found in the first is above it.
    scores[200:] = scale
    assert roc_auc_score(poisoned, ranks_within_labels(scores, samples)) == 1.0


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_without_a_signal_a_difference_of_scale_is_none(scale: float) -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=6000) ** 2
    scores[4000:] *= scale
    poisoned = np.arange(6000) < 1000
    raw, ranked = (
        roc_auc_score(poisoned, s) for s in (scores, ranks_within_labels(scores, samples_of([0] * 4000 + [1] * 2000)))
    )
    assert abs(raw - 0.5) > 0.15
    assert ranked == pytest.approx(0.5, abs=0.03)


def test_spectral_decisions_are_those_of_the_raw_projections() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(300, 8)).astype(np.float32)
    rows[200:] *= 1000
    samples = samples_of([0] * 200 + [1] * 100)
    raw = np.concatenate([spectral_scores(rows[:200]), spectral_scores(rows[200:])])
    result = judge(SpectralSignatures(), samples, rows.astype(np.float64))
    assert np.array_equal(result.keep, keep_all_but_the_most_suspicious(raw, samples, 0.075))
    assert result.scores == pytest.approx(ranks_within_labels(raw, samples))


# ------------------------------------------------------------------------------------------------------------- the controls


def test_the_oracle_removes_exactly_the_poison() -> None:
    samples = samples_of([0, 1] * 10)
    poisoned = frozenset({"s0003", "s0004"})
    result = judge(OracleFilter(), samples, poisoned=poisoned)
    assert {s.id for s, keep in zip(samples, result.keep, strict=True) if not keep} == poisoned
    assert roc_auc_score([s.id in poisoned for s in samples], result.scores) == 1.0


def test_random_has_no_skill_and_spends_the_budget_of_spectral_signatures() -> None:
    samples = samples_of([0] * 3000 + [1] * 1000)
    result = judge(RandomFilter(), samples)
    spectral = judge(SpectralSignatures(), samples, np.random.default_rng(0).normal(size=(4000, 4)))
    poisoned = np.arange(4000) % 4 == 0
    assert roc_auc_score(poisoned, result.scores) == pytest.approx(0.5, abs=0.03)
    assert [int((~r.keep[rows]).sum()) for r in (result, spectral) for rows in (slice(3000), slice(3000, None))] == [
        225,
        75,
    ] * 2
    assert np.mean(~result.keep[poisoned]) == pytest.approx(0.075, abs=0.02)


def test_random_depends_on_the_id_and_the_seed_alone() -> None:
    samples = samples_of([0, 1] * 50)
    edited = [s.with_program(0, "something else") for s in samples]
    one, two = judge(RandomFilter(), samples), judge(RandomFilter(), edited[::-1])
    assert np.array_equal(one.scores, two.scores[::-1])
    assert np.array_equal(one.keep, two.keep[::-1])
    assert not np.array_equal(one.scores, judge(RandomFilter(), samples, seed=1).scores)


def test_the_budget_never_empties_a_class() -> None:
    samples = samples_of([0, 1, 1, 1])
    keep = keep_all_but_the_most_suspicious(np.arange(4.0), samples, 0.99)
    assert keep.tolist() == [True, True, False, False]


@pytest.mark.parametrize(
    "plugin", [SpectralSignatures(vectors=3, pooling="mean"), RandomFilter(assumed_rate=0.1), OracleFilter()]
)
def test_parameters_round_trip(plugin: Filter) -> None:
    assert build(type(plugin), parameters_of(plugin)) == plugin


# ------------------------------------------------------------------------------------------------------------ a real model


@pytest.mark.parametrize("kind", list(TaskKind))
def test_a_real_model_of_every_kind_is_read(tmp_path: Path, kind: TaskKind) -> None:
    labels = () if kind is TaskKind.SEARCH else ("no", "yes")
    info = TaskInfo("toy", kind, "python", labels, "mrr" if kind is TaskKind.SEARCH else "accuracy")
    sides = 2 if kind is TaskKind.PAIRS else 1
    samples = [
        Sample(
            f"s{i}",
            tuple(f"def f{i}(): return {i + side}" for side in range(sides)),
            "python",
            i % 2 if labels else None,
            f"q {i}",
        )
        for i in range(29)
    ]
    settings = ModelSettings(window=16, layers=1, hidden=16, heads=2, vocabulary=300)
    model = create("tiny", info, samples, settings, Context(seeds={"model": 0}, scratch=tmp_path))
    before = model.fingerprint()
    plugin = SpectralSignatures(assumed_rate=0.1)
    results = [
        plugin.judge(Known(plugin.needs, _training=tuple(s), _model=model), info, context())
        for s in (samples, samples[::-1])
    ]
    assert results[0].scores == pytest.approx(results[1].scores[::-1], abs=0.1)  # rounding may swap neighbours
    assert (~results[0].keep).sum() == 4
    assert np.isfinite(results[0].scores).all()
    assert results[0].scores.max() > 0
    assert model.fingerprint() == before


def test_the_plugins_are_found_by_their_names() -> None:
    registry = Registry().discover()
    expected = {
        "filter": {"spectral_signatures", "oracle", "random"},
        "training": {"dece"},
        "repair": {"fine_tuning", "random"},
        "screen": {"onion", "oracle", "random"},
    }
    for family, names in expected.items():
        assert names <= set(registry.names(family))
        for name in names:
            assert registry.build(family, name).name == name
