"""Activation clustering and CUBE on clusters whose right answer is certain."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score, silhouette_score

from bench.contracts import Access, TaskKind
from bench.errors import ConfigError, ModelError
from bench.plugins import build, parameters_of
from defenses.filter.activation_clustering import ActivationClustering, reduction, silhouette
from defenses.filter.activation_clustering import two_clusters as split_in_two
from defenses.filter.budget import ranks_within_labels
from defenses.filter.cube import Cube, outside_the_largest
from defenses.filter.directions import top_directions
from tests.filter_toys import INFO, SEARCH, judge, samples_of, two_clusters

needs_umap = pytest.mark.skipif(importlib.util.find_spec("umap") is None, reason="umap-learn is not installed")


# ---------------------------------------------------------------------------------------------------- the directions


@pytest.mark.parametrize("shape", [(200, 24), (10, 24), (20000, 3)])
def test_directions_are_those_of_a_singular_value_decomposition(shape: tuple[int, int]) -> None:
    rows = np.random.default_rng(0).normal(size=shape) @ np.diag(np.linspace(1, 3, shape[1])) + 5
    centred = rows - rows.mean(axis=0)
    _, _, right = np.linalg.svd(centred, full_matrices=False)
    found = top_directions(rows, 3)
    assert np.abs(found.vectors.T @ right[:3].T) == pytest.approx(np.eye(3), abs=1e-8)
    assert found.project(rows) == pytest.approx(centred @ found.vectors, abs=1e-8)


def test_both_reductions_have_the_asked_for_dimensions_and_independent_ones_unit_variance() -> None:
    rows, _ = two_clusters(0.1)
    for method in ("ica", "pca"):
        reduce = reduction(rows, 10, method, np.random.default_rng(0))
        assert reduce is not None
        assert reduce(rows).shape == (300, 10)
        if method == "ica":
            assert np.cov(reduce(rows).T, bias=True) == pytest.approx(np.eye(10), abs=1e-6)


def test_directions_without_spread_are_left_out() -> None:
    rows = np.zeros((50, 8), dtype=np.float32) + 1e4
    rows[:, 2] += np.arange(50)
    reduce = reduction(rows, 5, "ica", np.random.default_rng(0))
    assert reduce is not None
    assert reduce(rows).shape == (50, 1)
    assert reduction(rows[:, [0, 1]], 5, "pca", np.random.default_rng(0)) is None


# --------------------------------------------------------------------------------------------- activation clustering


@pytest.mark.parametrize("method", ["ica", "pca"])
@pytest.mark.parametrize("share", [0.05, 0.1, 0.2])
def test_a_separated_cluster_is_dropped_whole_and_alone(method: str, share: float) -> None:
    rows, poisoned = two_clusters(share)
    result = judge(build(ActivationClustering, {"reduction": method}), samples_of([0] * 300), rows)
    assert roc_auc_score(poisoned, result.scores) > 0.99
    assert (~result.keep[poisoned]).all()
    assert (~result.keep[~poisoned]).mean() <= 0.01


def test_two_percent_is_found_on_principal_components_and_lost_on_independent_ones() -> None:
    # With unit variance on every axis, cutting through noise is then the better 2-means clustering: ICA's limit, not a defect.
    rows, poisoned = two_clusters(0.02)
    samples = samples_of([0] * 300)
    principal = judge(ActivationClustering(reduction="pca"), samples, rows)
    assert (~principal.keep).tolist() == poisoned.tolist()
    assert judge(ActivationClustering(reduction="ica"), samples, rows).keep.all()


@pytest.mark.parametrize("method", ["ica", "pca"])
@pytest.mark.parametrize("seed", range(3))
def test_all_is_kept_where_nothing_is_poisoned(method: str, seed: int) -> None:
    rows, _ = two_clusters(0.0, seed=seed)
    plugin = build(ActivationClustering, {"reduction": method})
    assert judge(plugin, samples_of([0] * 200 + [1] * 100), rows).keep.all()


def test_poison_that_leaves_no_trace_is_not_found() -> None:
    rows, poisoned = two_clusters(0.2, shift=0.0, n=1500)
    result = judge(ActivationClustering(reduction="pca"), samples_of([0] * 1500), rows)
    assert roc_auc_score(poisoned, result.scores) == pytest.approx(0.5, abs=0.06)


def test_each_class_is_judged_and_ranked_alone() -> None:
    poisoned_rows, poisoned = two_clusters(0.1, n=200)
    rows = np.concatenate([poisoned_rows, two_clusters(0.0, n=100)[0] + 40])
    result = judge(ActivationClustering(), samples_of([0] * 200 + [1] * 100), rows)
    assert np.flatnonzero(~result.keep).tolist() == np.flatnonzero(poisoned).tolist()
    assert roc_auc_score(poisoned, result.scores[:200]) > 0.99
    for part in (slice(200), slice(200, None)):
        assert result.scores[part].mean() == pytest.approx(0.5)


@pytest.mark.parametrize("decision", ["silhouette", "size", "smaller"])
def test_the_decisions_are_not_made_from_the_ranks(monkeypatch: pytest.MonkeyPatch, decision: str) -> None:
    rows = np.concatenate([two_clusters(0.1, n=200)[0], 1e3 * two_clusters(0.0, n=100)[0]])
    samples, plugin = samples_of([0] * 200 + [1] * 100), build(ActivationClustering, {"decision": decision})
    result = judge(plugin, samples, rows)
    monkeypatch.setattr("defenses.filter.activation_clustering.ranks_within_labels", lambda scores, _: scores)
    raw = judge(plugin, samples, rows)
    assert np.array_equal(result.keep, raw.keep)
    assert result.scores == pytest.approx(ranks_within_labels(raw.scores, samples))


def test_in_search_the_length_of_a_vector_says_nothing_to_clustering() -> None:
    rows, _ = two_clusters(0.1)
    lengths = np.exp(np.random.default_rng(1).normal(size=(300, 1)))
    samples = samples_of([None] * 300)
    kept = [judge(ActivationClustering(), samples, each, info=SEARCH).keep for each in (rows, rows * lengths)]
    assert np.array_equal(*kept)


def test_search_is_one_class_of_programs() -> None:
    rows, poisoned = two_clusters(0.1)
    result = judge(ActivationClustering(), samples_of([None] * 300), rows, info=SEARCH)
    assert np.flatnonzero(~result.keep).tolist() == np.flatnonzero(poisoned).tolist()


@pytest.mark.parametrize("decision", ["silhouette", "size", "smaller"])
def test_what_each_analysis_drops(decision: str) -> None:
    half, lopsided = two_clusters(0.45)[0], two_clusters(0.2)[0]
    noise = two_clusters(0.0)[0]
    plugin = build(ActivationClustering, {"decision": decision, "reduction": "pca"})
    dropped = [int((~judge(plugin, samples_of([0] * 300), rows).keep).sum()) for rows in (half, lopsided, noise)]
    if decision == "smaller":
        assert dropped[:2] == [135, 60]
        assert dropped[2] > 0
    else:
        assert dropped == [0, 60, 0]


def test_clean_samples_say_whether_the_smaller_cluster_is_natural() -> None:
    # The same lopsided class twice: once as nature made it (clean samples have the second cluster too), once poisoned.
    rows, poisoned = two_clusters(0.2)
    plugin = ActivationClustering(decision="clean", reduction="pca", false_positive_rate=0.05)
    samples, clean = samples_of([0] * 300), samples_of([0] * 60, prefix="c")
    natural, _ = two_clusters(0.2, n=60)
    usual = rows[~poisoned][:60]
    assert judge(plugin, samples, rows, clean, natural).keep.all()
    assert (~judge(plugin, samples, rows, clean, usual).keep).tolist() == poisoned.tolist()


@pytest.mark.parametrize(("vouching", "dropped"), [(18, 0), (19, 60)])
def test_too_few_clean_samples_vouch_for_nothing(vouching: int, dropped: int) -> None:
    rows, poisoned = two_clusters(0.2)
    plugin = ActivationClustering(decision="clean", reduction="pca")
    clean = samples_of([0] * vouching + [1] * 40, prefix="c")
    features = rows[~poisoned][: len(clean)]
    assert (~judge(plugin, samples_of([0] * 300), rows, clean, features).keep).sum() == dropped


def test_only_one_analysis_asks_for_clean_samples() -> None:
    assert ActivationClustering().needs.clean == 0
    assert ActivationClustering(decision="clean", clean=40).needs.clean == 40
    assert ActivationClustering().needs.model is Access.WEIGHTS


@pytest.mark.parametrize("labels", [[], [0], [0, 1], [0] * 9 + [1] * 9, [0] * 12])
def test_tiny_classes_and_identical_points_are_kept_whole(labels: list[int]) -> None:
    for decision in ("silhouette", "size", "smaller"):
        plugin = build(ActivationClustering, {"decision": decision})
        result = judge(plugin, samples_of(labels), np.ones((len(labels), 5)))
        assert result.keep.all()
        assert (result.scores == 0.5).all()  # nobody is more suspicious than another


def test_a_class_of_one_sample_beside_a_poisoned_one_is_kept() -> None:
    rows, poisoned = two_clusters(0.1, n=201)
    labels = [0] * 200 + [1]
    result = judge(ActivationClustering(), samples_of(labels), rows)
    assert result.keep[200]
    assert (~result.keep[:200]).tolist() == poisoned[:200].tolist()


def test_neither_the_order_of_rows_nor_anything_but_the_seed_matters() -> None:
    rows, _ = two_clusters(0.1, shift=4.0)
    samples = samples_of([0] * 180 + [1] * 120)
    order = np.random.default_rng(3).permutation(300)
    first = judge(ActivationClustering(), samples, rows)
    moved = judge(ActivationClustering(), [samples[i] for i in order], rows[order])
    assert np.array_equal(first.scores[order], moved.scores)
    assert np.array_equal(first.keep[order], moved.keep)


def test_the_silhouette_is_scikit_learns_and_a_draw_comes_near(monkeypatch: pytest.MonkeyPatch) -> None:
    points, smaller = two_clusters(0.1, n=600)
    rng = np.random.default_rng(0)
    exact = float(silhouette_score(points, smaller))
    assert silhouette(points, smaller, rng) == pytest.approx(exact, abs=1e-12)
    monkeypatch.setattr("defenses.filter.activation_clustering.SILHOUETTE_ROWS", 100)
    assert silhouette(points, smaller, rng) == pytest.approx(exact, abs=0.02)


def test_the_best_of_all_starts_is_at_least_as_good_as_random_ones() -> None:
    from sklearn.cluster import KMeans

    rows, poisoned = two_clusters(0.05, n=1000)
    reduce = reduction(rows, 10, "ica", np.random.default_rng(0))
    assert reduce is not None
    points = reduce(rows)
    found = split_in_two(points, 0, np.random.default_rng(0))
    assert found is not None
    assert found.smaller.tolist() == poisoned.tolist()
    inertia = sum(
        float(((points[found.smaller == side] - found.centres[int(side)]) ** 2).sum()) for side in (False, True)
    )
    assert inertia <= float(KMeans(2, n_init=5, random_state=0).fit(points).inertia_) + 1e-6


def test_a_diverged_model_and_a_missing_layer_are_errors() -> None:
    with pytest.raises(ModelError, match="not finite"):
        judge(ActivationClustering(), samples_of([0] * 12), np.full((12, 2), np.nan))
    with pytest.raises(ConfigError, match="no hidden layer 7"):
        judge(ActivationClustering(layer=7), samples_of([0] * 12), np.ones((12, 2)))


@pytest.mark.parametrize(
    "parameters", [{"dimensions": 0}, {"size": 0.6}, {"silhouette": 1.5}, {"decision": "distance"}, {"restarts": -1}]
)
def test_impossible_parameters_are_refused(parameters: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        build(ActivationClustering, parameters)


def test_parameters_round_trip() -> None:
    for plugin in (ActivationClustering(decision="clean", reduction="pca"), Cube(min_samples=7)):
        assert build(type(plugin), parameters_of(plugin)) == plugin


# -------------------------------------------------------------------------------------------------------------- CUBE


@pytest.mark.parametrize(
    ("clusters", "dropped"),
    [
        ([0, 0, 0, 1], [3]),
        ([0, 0, 1, 1], []),  # a tie: neither holds less than half
        ([-1, -1, 3, -1], [2]),  # most are noise, which then is the largest
        ([5, 5, 5], []),
        ([0, 0, 0, -1, 1, 1], [3, 4, 5]),
        ([2], []),
    ],
)
def test_each_label_keeps_its_largest_cluster(clusters: list[int], dropped: list[int]) -> None:
    scores, out = outside_the_largest(np.array(clusters))
    assert np.flatnonzero(out).tolist() == dropped
    expected = [1 - clusters.count(c) / len(clusters) for c in clusters]
    assert scores == pytest.approx(expected)


def test_clusters_are_read_label_by_label(monkeypatch: pytest.MonkeyPatch) -> None:
    # Cluster 1 is the minority of label 0 and the majority of label 1.
    clusters: dict[float, int] = {0.0: 0, 1.0: 1}

    def look_up(self: Cube, vectors: NDArray[np.floating], seed: int) -> NDArray[np.integer]:
        return np.array([clusters[float(v)] for v in vectors[:, 0]])

    monkeypatch.setattr(Cube, "_clusters", look_up)
    samples = samples_of([0] * 10 + [1] * 10)
    rows = np.array([0.0] * 8 + [1.0] * 2 + [1.0] * 10)[:, None]
    order = np.random.default_rng(0).permutation(20)
    result = judge(Cube(min_samples=2), [samples[i] for i in order], rows[order])
    assert sorted(samples[i].id for i in order[~result.keep]) == ["s00008", "s00009"]
    # Label 0: 8 kept, then 2; label 1 is all alike, though its cluster is the one dropped from label 0.
    assert result.scores[~result.keep] == pytest.approx(0.9)
    scores = {samples[i].id: score for i, score in zip(order, result.scores, strict=True)}
    assert [scores[s.id] for s in samples] == pytest.approx([0.4] * 8 + [0.9] * 2 + [0.5] * 10)


def test_identical_points_are_kept() -> None:
    result = judge(Cube(min_samples=5), samples_of([0] * 20), np.ones((20, 4)))
    assert result.keep.all()
    assert (result.scores == 0.5).all()


def test_too_few_samples_for_a_core_are_refused_with_advice() -> None:
    with pytest.raises(ConfigError, match="min_samples"):
        judge(Cube(), samples_of([0] * 100), np.random.default_rng(0).normal(size=(100, 4)))


def test_search_is_not_for_cube() -> None:
    assert Cube().not_applicable(SEARCH) is not None
    assert Cube().not_applicable(INFO) is None
    assert Cube.kinds == {TaskKind.CLASSIFICATION, TaskKind.PAIRS}


# All that runs UMAP stands in this file: it compiles for half a minute, once in every process that asks for it.
SMALL_CUBE = Cube(neighbours=15, min_samples=15)
EACH = 200


def two_labels(share: float, shift: float = 20.0, seed: int = 7) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Two classes far from each other, of 200 rows each; a share of the first is moved as in :func:`two_clusters`."""
    rows, poisoned = two_clusters(share, shift=shift, n=EACH, seed=seed)
    other, _ = two_clusters(0.0, n=EACH, seed=seed + 100)
    return np.concatenate([rows, other + 60]), np.concatenate([poisoned, np.zeros(EACH, dtype=np.bool_)])


def judge_two_labels(rows: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """CUBE's scores of the first label, and its decisions on both."""
    result = judge(SMALL_CUBE, samples_of([0] * EACH + [1] * EACH), rows)
    return result.scores[:EACH], result.keep


@needs_umap
@pytest.mark.slow
@pytest.mark.parametrize("share", [0.1, 0.15, 0.2])
def test_poison_that_stands_apart_is_dropped_whole_and_alone(share: float) -> None:
    rows, poisoned = two_labels(share)
    scores, keep = judge_two_labels(rows)
    assert (~keep).tolist() == poisoned.tolist()
    assert roc_auc_score(poisoned[:EACH], scores) == 1.0


@needs_umap
@pytest.mark.slow
def test_poison_of_fewer_samples_than_a_core_needs_is_dropped_whole_or_not_at_all() -> None:
    """Ten samples are no cluster of their own. Where UMAP lays them decides, and two kinds of processor lay them differently."""
    rows, poisoned = two_labels(0.05)
    assert poisoned.sum() < (SMALL_CUBE.min_samples or 0)
    dropped = ~judge_two_labels(rows)[1]
    assert not dropped[~poisoned].any()
    assert dropped[poisoned].all() or not dropped[poisoned].any()


@needs_umap
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_cube_keeps_all_where_nothing_is_poisoned(seed: int) -> None:
    # It has no threshold, so no rate of its own; two clean classes are two clusters, each the largest of its label.
    scores, keep = judge_two_labels(two_labels(0.0, seed=seed)[0])
    assert keep.all()
    assert (scores == 0.5).all()


@needs_umap
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_poison_that_leaves_no_trace_is_not_found_by_cube(seed: int) -> None:
    rows, poisoned = two_labels(0.2, shift=0.0, seed=seed)
    scores, keep = judge_two_labels(rows)
    assert keep.all()
    assert roc_auc_score(poisoned[:EACH], scores) == pytest.approx(0.5, abs=0.05)


@needs_umap
@pytest.mark.slow
def test_poison_of_fewer_samples_than_a_core_is_no_cluster() -> None:
    # Four samples where a core has fifteen neighbours: the density that CUBE looks for is not there. Its limit, not a defect.
    rows, poisoned = two_labels(0.02)
    assert poisoned.sum() == 4 < SMALL_CUBE.min_samples
    assert judge_two_labels(rows)[1].all()


@needs_umap
@pytest.mark.slow
def test_a_lone_class_keeps_its_largest_cluster() -> None:
    rows, poisoned = two_clusters(0.1, shift=20.0, n=EACH)
    result = judge(SMALL_CUBE, samples_of([1] * EACH), rows)
    assert (~result.keep).tolist() == poisoned.tolist()
    assert roc_auc_score(poisoned, result.scores) == 1.0


@needs_umap
@pytest.mark.slow
def test_a_lone_clean_class_is_cut_where_it_is_densest() -> None:
    # HDBSCAN as published never says "one cluster": without a second class to tell apart it cuts the cloud, and most of what it calls
    # no cluster is lost. What this costs on real classes shows in the null attack's cells.
    result = judge(SMALL_CUBE, samples_of([1] * EACH), two_clusters(0.0, n=EACH)[0])
    sizes = np.unique(result.scores, return_counts=True)[1]
    assert len(sizes) > 1
    assert result.keep.sum() == sizes.max()
    assert roc_auc_score(np.arange(EACH) % 2, result.scores) == pytest.approx(
        0.5, abs=0.1
    )  # by chance, whoever is lost


@needs_umap
@pytest.mark.slow
def test_classes_of_identical_points_are_told_apart_by_their_points() -> None:
    # Ten samples of label 0 stand exactly where all of label 1 stand.
    rows = np.repeat([[0.0] * 8, [9.0] * 8], [50, 70], axis=0)
    result = judge(SMALL_CUBE, samples_of([0] * 60 + [1] * 60), rows)
    assert np.flatnonzero(~result.keep).tolist() == list(range(50, 60))
    assert roc_auc_score(np.arange(60) >= 50, result.scores[:60]) == 1.0
    apart = np.repeat([[0.0] * 8, [9.0] * 8], 60, axis=0)
    assert judge(SMALL_CUBE, samples_of([0] * 60 + [1] * 60), apart).keep.all()


@needs_umap
@pytest.mark.slow
def test_neither_the_order_of_rows_nor_anything_but_the_seed_moves_cube() -> None:
    rows, _ = two_labels(0.15)
    samples = samples_of([0] * EACH + [1] * EACH)
    first, again = judge(SMALL_CUBE, samples, rows), judge(SMALL_CUBE, samples[::-1], rows[::-1])
    assert np.array_equal(first.keep, again.keep[::-1])
    assert np.array_equal(first.scores, again.scores[::-1])


def test_cube_refuses_a_diverged_model_and_a_missing_layer() -> None:
    rows = np.ones((40, 2))
    rows[3] = np.nan
    with pytest.raises(ModelError, match="cube: the victim's representations of its training set are not finite"):
        judge(Cube(min_samples=5), samples_of([0] * 40), rows)
    with pytest.raises(ConfigError, match="cube: the model has no hidden layer 7"):
        judge(Cube(min_samples=5, layer=7), samples_of([0] * 40), np.ones((40, 2)))
