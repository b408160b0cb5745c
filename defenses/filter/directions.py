"""The directions along which samples vary most: what spectral signatures score on, and what clustering reduces to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

Floats = NDArray[np.float64]
BLOCK = 8192
"""Rows that are turned to double precision at a time: the whole class never is, so memory stays near the data's own."""


@dataclass(frozen=True)
class Directions:
    """Top right singular vectors of a centred matrix.

    Attributes:
        mean: of the rows, shape (d,).
        vectors: orthonormal columns, shape (d, k), that of the largest variance first.
    """

    mean: Floats
    vectors: Floats

    def project(self, rows: NDArray[np.floating]) -> Floats:
        """Coordinates of centred rows along the directions; float64 of shape (n, k)."""
        coordinates = np.empty((len(rows), self.vectors.shape[1]))
        for start in range(0, len(rows), BLOCK):
            coordinates[start : start + BLOCK] = (rows[start : start + BLOCK] - self.mean) @ self.vectors
        return coordinates


def top_directions(rows: NDArray[np.floating], count: int) -> Directions:
    """The ``count`` directions of largest variance; more than d means all there are.

    The right singular vectors of M are the eigenvectors of M'M, and these stand in the *columns* of what an
    eigendecomposition returns. Taking a row instead, as widely copied code does, gives an arbitrary direction.

    Args:
        rows: shape (n, d), both at least 1.
        count: at least 1.
    """
    d = rows.shape[1]
    top = min(count, d)
    mean = rows.mean(axis=0, dtype=np.float64)
    scatter = np.zeros((d, d))
    for start in range(0, len(rows), BLOCK):
        centred = rows[start : start + BLOCK] - mean
        scatter += centred.T @ centred
    _, vectors = eigh(scatter, subset_by_index=[d - top, d - 1])
    return Directions(mean, vectors[:, ::-1])
