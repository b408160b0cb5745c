"""CUBE: in a space made for clustering, poison is a cluster of its own within its label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from sklearn.cluster import HDBSCAN

from bench.context import Context
from bench.contracts import Access, Filter, Known, Needs, Suspicion, TaskInfo, TaskKind
from bench.errors import ConfigError
from defenses.filter.budget import ranks_within_labels, rows_by_label
from defenses.filter.directions import Floats, top_directions
from defenses.filter.representations import Pooling, representations

DROPPED_BELOW = 0.5
"""A cluster is dropped only where it holds less than this share of its label."""


def embed(rows: NDArray[np.floating], principal: int, components: int, neighbours: int, seed: int) -> Floats:
    """Rows (n, d) on their principal components, and these in the plane of UMAP; shape (n, components)."""
    # Imported here: it compiles for many seconds, and is an optional package.
    from umap import UMAP

    directions = top_directions(rows, principal)
    reducer = UMAP(
        n_neighbors=neighbours, min_dist=0.0, n_components=components, random_state=seed, transform_seed=seed, n_jobs=1
    )
    return np.asarray(reducer.fit_transform(directions.project(rows)), dtype=np.float64)


def outside_the_largest(clusters: NDArray[np.integer]) -> tuple[Floats, NDArray[np.bool_]]:
    """How rare each row's cluster is within its label, and whether to drop it.

    Args:
        clusters: cluster numbers of the rows of one label, shape (n,); -1 (no cluster) counts as a cluster, as in the release.

    Returns:
        (1 - the cluster's share of the label, shape (n,); True for clusters other than the largest that hold less than half).
    """
    sizes = Counter(clusters.tolist())
    largest = min(sizes, key=lambda cluster: (-sizes[cluster], cluster))
    shares = np.array([sizes[cluster] / len(clusters) for cluster in clusters.tolist()])
    return 1.0 - shares, (clusters != largest) & (shares < DROPPED_BELOW)


@dataclass(frozen=True, kw_only=True)
class Cube(Filter):
    """Embed all training samples in a plane, cluster it by density, and keep of each observed label its largest cluster.

    Source: Cui, Yuan, He et al., "A Unified Evaluation of Textual Backdoor Learning: Frameworks and Benchmarks", NeurIPS 2022
    Datasets and Benchmarks (CUBE), with the parameters of the authors' toolkit: representations of a model fine-tuned on the
    suspected data (10 epochs, 2e-5), 20 principal components, UMAP (100 neighbours, least distance 0) to two dimensions, HDBSCAN
    (100 samples to a core). Classes are clustered *together*; then, label by label, every cluster but the largest is dropped unless it
    holds half of the label, and what HDBSCAN leaves without a cluster counts as one.

    What is a port: the model is the victim, which was fine-tuned on this very training set, so no second one is trained; the
    representation is what its head sees (pairs: the joined vector), where the toolkit takes the head's hidden layer. HDBSCAN is
    scikit-learn's, which counts a sample among its own neighbours. Not defined for code search: without labels there is
    nothing within which a cluster could be a minority, and clusters of programs are topics.

    There is no threshold, so nothing that clean data could set: what it costs where nothing is poisoned shows in the cells of the
    null attack. HDBSCAN never finds one cluster alone: with nothing else to tell apart (one class, none of it poisoned) it cuts the
    class, and up to half is lost.

    A sample's score is how small a share of its label its cluster holds, as a rank within its observed label
    (:func:`~defenses.filter.budget.ranks_within_labels`). Shares cannot be compared between labels: in a label of many clusters the one
    that is kept is itself a small share. The method never compares them.

    Attributes:
        principal: principal components given to UMAP.
        components: dimensions of UMAP's space.
        neighbours: of UMAP; with fewer samples, all of them.
        min_samples: of HDBSCAN. Poison of fewer samples than this is no cluster of its own; the default is the toolkit's, for
            training sets of thousands, and small suites lower it.
        layer: hidden layer the representations come from: 0 for the embedding output, -1 for the last.
        pooling: how token vectors become one, see :data:`~defenses.filter.representations.Pooling`.
    """

    name = "cube"
    summary = "keeps each label's largest cluster of representations (UMAP and HDBSCAN)"
    paper = "Cui et al.: A Unified Evaluation of Textual Backdoor Learning: Frameworks and Benchmarks. NeurIPS 2022 D&B"
    kinds = frozenset({TaskKind.CLASSIFICATION, TaskKind.PAIRS})
    requires = ("umap",)
    needs = Needs(training_set=True, model=Access.WEIGHTS)
    version = 2  # 1 told raw shares
    toy_parameters: ClassVar[Mapping[str, object]] = {"min_samples": 20}

    principal: Annotated[int, Field(ge=2)] = 20
    components: Annotated[int, Field(ge=1)] = 2
    neighbours: Annotated[int, Field(ge=2)] = 100
    min_samples: Annotated[int, Field(ge=2)] = 100
    layer: int = -1
    pooling: Pooling = "head"

    def judge(self, known: Known, task: TaskInfo, context: Context) -> Suspicion:
        """Scores, and a decision for each label.

        Raises:
            bench.errors.ConfigError: there are fewer training samples than ``min_samples``, or the model has no such layer.
            bench.errors.ModelError: the model's representations are not finite (training diverged).
        """
        # In the order of ids, so that the training set's own order does not move the embedding.
        order = sorted(range(len(known.training)), key=lambda i: known.training[i].id)
        samples = [known.training[i] for i in order]
        if len(samples) <= self.min_samples:
            raise ConfigError(
                f"cube: {len(samples)} training samples hold no cluster whose samples have {self.min_samples} neighbours; "
                "lower its parameter 'min_samples'"
            )
        vectors = representations(known.white_box, samples, task, self.layer, self.pooling, self.name)
        scores, keep = np.zeros(len(samples)), np.ones(len(samples), dtype=np.bool_)
        if np.ptp(vectors, axis=0).any():
            clusters = self._clusters(vectors, int(context.rng("defense", self.name).integers(2**31)))
            for rows in rows_by_label(samples):
                scores[rows], dropped = outside_the_largest(clusters[rows])
                keep[rows[dropped]] = False
        back = np.argsort(order)
        return Suspicion(ranks_within_labels(scores, samples)[back], keep[back])

    def _clusters(self, vectors: NDArray[np.floating], seed: int) -> NDArray[np.integer]:
        neighbours = min(self.neighbours, len(vectors) - 1)
        plane = embed(vectors, self.principal, self.components, neighbours, seed)
        found: NDArray[np.integer] = HDBSCAN(min_samples=self.min_samples, copy=True).fit_predict(plane)
        return found
