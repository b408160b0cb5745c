"""Activation clustering: the representations of a poisoned class fall into two clusters, a clean class into one."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from sklearn.cluster import KMeans
from sklearn.decomposition import FastICA
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import silhouette_samples
from threadpoolctl import threadpool_limits

from bench.context import Context
from bench.contracts import Access, Filter, Known, Needs, Suspicion, TaskInfo
from bench.samples import Sample
from defenses.filter.budget import ranks_within_labels, rows_by_label
from defenses.filter.directions import Floats, top_directions
from defenses.filter.representations import Pooling, representations

Method = Literal["ica", "pca"]
FEWEST = 10
"""A class of fewer samples is not judged: two clusters of so few points say nothing."""
FLAT = 1e-6
"""A direction with less spread than this share of the widest, or of the rows' size, is rounding noise and no direction."""
SILHOUETTE_ROWS = 5000
"""The silhouette compares all pairs; beyond this many rows it is taken on a draw of them."""


@dataclass(frozen=True)
class Split:
    """One class in two clusters.

    Attributes:
        points: the reduced rows, shape (n, k).
        centres: of the larger and of the smaller cluster, shape (2, k).
        smaller: bool of shape (n,): is the row in the smaller cluster?
        silhouette: mean silhouette of the two clusters, in [-1, 1].
    """

    points: Floats
    centres: Floats
    smaller: NDArray[np.bool_]
    silhouette: float

    @property
    def share(self) -> float:
        """The smaller cluster's share of the class."""
        return float(self.smaller.mean())

    def lean(self, points: Floats) -> Floats:
        """How much nearer points lie to the smaller cluster's centre than to the larger's, in [-1, 1]."""
        to_larger, to_smaller = (np.linalg.norm(points - centre, axis=1) for centre in self.centres)
        return np.asarray((to_larger - to_smaller) / np.maximum(to_larger + to_smaller, 1e-12), dtype=np.float64)


def reduction(
    rows: NDArray[np.floating], dimensions: int, method: Method, rng: np.random.Generator
) -> Callable[[NDArray[np.floating]], Floats] | None:
    """A map of rows (n, d) to at most ``dimensions`` components fitted to ``rows``; ``None`` where the rows do not vary."""
    directions = top_directions(rows, dimensions)
    principal = directions.project(rows)
    spread = principal.std(axis=0)
    real = spread > FLAT * max(float(spread[0]), float(np.abs(directions.mean).max()))
    if not real.any():
        return None
    if method == "pca":
        return lambda more: directions.project(more)[:, real]
    count = int(real.sum())
    ica = FastICA(whiten="unit-variance", w_init=rng.normal(size=(count, count)))
    with warnings.catch_warnings():
        # Noise has no independent components to converge to; any rotation of it serves.
        warnings.simplefilter("ignore", ConvergenceWarning)
        ica.fit(principal[:, real])
    return lambda more: np.asarray(ica.transform(directions.project(more)[:, real]), dtype=np.float64)


def two_clusters(points: Floats, restarts: int, rng: np.random.Generator) -> Split | None:
    """The best 2-means clustering found; ``None`` where there are no two different points.

    Random starts alone miss a small cluster even where it is far away: on ICA's components, all of which have unit variance, ten
    starts found 5 % of poison at eight standard deviations in one run of five. So each axis gives two starts more: its
    extreme points against the mean.
    """
    if (points == points[0]).all():
        return None
    seed = int(rng.integers(2**31))
    mean = points.mean(axis=0)
    extremes = np.unique(np.concatenate([points.argmin(axis=0), points.argmax(axis=0)]))
    starts = [np.stack([mean, points[i]]) for i in extremes if not np.allclose(points[i], mean)]
    with threadpool_limits(1), warnings.catch_warnings():  # sums over threads would depend on their order
        warnings.simplefilter("ignore", ConvergenceWarning)
        runs = [KMeans(2, init=start, n_init=1).fit(points) for start in starts]
        if restarts:
            runs.append(KMeans(2, n_init=restarts, random_state=seed).fit(points))
        best = min(runs, key=lambda run: float(run.inertia_))
        sizes = np.bincount(best.labels_, minlength=2)
        if not sizes.all():
            return None
        smaller = int(sizes.argmin())
    in_smaller = best.labels_ == smaller
    return Split(points, best.cluster_centers_[[1 - smaller, smaller]], in_smaller, silhouette(points, in_smaller, rng))


def silhouette(points: Floats, smaller: NDArray[np.bool_], rng: np.random.Generator) -> float:
    """Mean silhouette of two clusters, over a draw of rows from each where they are large.

    A row's silhouette needs its mean distance to each cluster alone, so a draw from each cluster, weighed by the clusters' true
    sizes, estimates the mean without bias, however small the smaller one is.
    """
    total = 0.0
    drawn = [rng.permutation(np.flatnonzero(smaller == side))[:SILHOUETTE_ROWS] for side in (False, True)]
    rows = np.concatenate(drawn)
    values = silhouette_samples(points[rows], smaller[rows])
    for side, part in zip((False, True), drawn, strict=True):
        total += float(values[smaller[rows] == side].mean()) * float((smaller == side).mean()) if len(part) else 0.0
    return total


@dataclass(frozen=True, kw_only=True)
class ActivationClustering(Filter):
    """Split each observed class in two by k-means; where the split is real and lopsided, the smaller part is the poison.

    Source: Chen, Carvalho, Baracaldo et al., "Detecting Backdoor Attacks on Deep Neural Networks by Activation Clustering",
    SafeAI at AAAI 2019: last hidden activations, class by class, reduced to 10 independent components, k-means with k = 2, and
    one of several analyses of the two clusters. The analyses here, by ``decision``:

    - ``silhouette`` (default): the smaller cluster is dropped where the mean silhouette is at least ``silhouette`` *and* its share
      of the class is below ``size``. 0.1 and 0.35 are the defaults of the toolkit that the authors' group publishes.
    - ``size``: below ``size``, whatever the silhouette. ``smaller``: always.
    - ``clean``: not in the paper. The smaller cluster is dropped where at most ``false_positive_rate`` of the clean samples of that
      class would fall into it, so that what is lost on clean data is stated in advance. It is the one analysis that is given
      clean samples; too few of a class to vouch for the rate (19 for 5 %) drop nothing.

    The paper's exclusionary reclassification (train again without the cluster and ask what that model says of it) is left out: a
    filter of this harness does not train.

    What is a port: pairs are clustered by the vector that the head sees for the pair, within their label; code search has no
    classes, and the vectors of all its programs are one. k-means gets two more starts an axis beside the random ones
    (see :func:`two_clusters`), without which it often misses the optimum that the method assumes it finds. A release that is often
    copied clusters all classes at once, in two whitened dimensions; this one does not.

    A sample's score is how much nearer it lies to its class's smaller cluster than to the larger, as a rank within its observed
    class (:func:`~defenses.filter.budget.ranks_within_labels`): the clusters of two classes are in spaces of their own, and the paper
    never compares samples between classes. Whether a class falls apart at all is the decision's business, class by class, and not
    the score's. In code search, whose model compares unit vectors, the vectors are read at unit length.

    Attributes:
        dimensions: components that representations are reduced to.
        reduction: independent components (the paper's choice) or principal ones.
        decision: see above.
        silhouette: least mean silhouette of a poisoned class.
        size: largest share of a class that is taken for poison.
        clean: number of clean samples, for ``decision: clean`` alone.
        false_positive_rate: share of clean samples that may be lost, for ``decision: clean`` alone.
        restarts: random starts of k-means.
        layer: hidden layer the representations come from: 0 for the embedding output, -1 for the last.
        pooling: how token vectors become one, see :data:`~defenses.filter.representations.Pooling`.
    """

    name = "activation_clustering"
    summary = "drops the smaller of a class's two clusters of representations"
    paper = (
        "Chen et al.: Detecting Backdoor Attacks on Deep Neural Networks by Activation Clustering. SafeAI at AAAI 2019"
    )
    version = 2  # 1 told raw scores, and read vectors of code search at their own length

    dimensions: Annotated[int, Field(ge=1)] = 10
    reduction: Method = "ica"
    decision: Literal["silhouette", "size", "smaller", "clean"] = "silhouette"
    silhouette: Annotated[float, Field(ge=-1, le=1)] = 0.1
    size: Annotated[float, Field(gt=0, le=0.5)] = 0.35
    clean: Annotated[int, Field(ge=1)] = 300
    false_positive_rate: Annotated[float, Field(gt=0, lt=1)] = 0.05
    restarts: Annotated[int, Field(ge=0)] = 10
    layer: int = -1
    pooling: Pooling = "head"

    @property
    def needs(self) -> Needs:  # only one of the analyses looks at clean samples
        """The training set and the victim; clean samples for ``decision: clean`` alone."""
        return Needs(training_set=True, model=Access.WEIGHTS, clean=self.clean if self.decision == "clean" else 0)

    def judge(self, known: Known, task: TaskInfo, context: Context) -> Suspicion:
        """Scores, and a decision for each class.

        Raises:
            bench.errors.ConfigError: the model has no such layer.
            bench.errors.ModelError: the model's representations are not finite (training diverged).
        """
        samples = known.training
        scores, keep = np.zeros(len(samples)), np.ones(len(samples), dtype=np.bool_)
        if not samples:
            return Suspicion(scores, keep)
        vectors = self._read(known, samples, task)
        trusted = known.clean if self.decision == "clean" else ()
        trusted_vectors = self._read(known, trusted, task) if trusted else vectors[:0]
        for rows in rows_by_label(samples):
            if len(rows) < FEWEST:
                continue
            # In the order of ids, so that the training set's own order moves neither the clusters nor the draws.
            rows = np.array(sorted(rows, key=lambda row: samples[row].id), dtype=np.intp)
            label = samples[rows[0]].label
            rng = context.rng("defense", self.name, str(label))
            reduce = reduction(vectors[rows], self.dimensions, self.reduction, rng)
            split = None if reduce is None else two_clusters(reduce(vectors[rows]), self.restarts, rng)
            if reduce is None or split is None:
                continue
            scores[rows] = split.lean(split.points)
            of_class = np.array([s.label == label for s in trusted], dtype=np.bool_)
            clean = reduce(trusted_vectors[of_class]) if of_class.any() else split.points[:0]
            if self._is_poison(split, clean):
                keep[rows[split.smaller]] = False
        return Suspicion(ranks_within_labels(scores, samples), keep)

    def _read(self, known: Known, samples: Sequence[Sample], task: TaskInfo) -> NDArray[np.float32]:
        return representations(known.white_box, samples, task, self.layer, self.pooling, self.name)

    def _is_poison(self, split: Split, clean: Floats) -> bool:
        """Is the smaller cluster taken for poison? ``clean`` are reduced clean samples of the class, shape (m, k)."""
        if self.decision == "smaller":
            return True
        if self.decision == "clean":
            # One is added to both, as in a conformal quantile: that many clean samples vouch for the rate.
            return int((split.lean(clean) > 0).sum()) + 1 <= self.false_positive_rate * (len(clean) + 1) + 1e-9
        small = split.share < self.size
        return small and (self.decision == "size" or split.silhouette >= self.silhouette)
