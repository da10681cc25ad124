"""Where a regular grid of voxels lies in the patient."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

Vector = tuple[float, ...]
Matrix = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Geometry:
    """A regular grid in world space, in array order: (z, y, x) for volumes, (y, x) for images.

    World coordinates are LPS millimetres with their axes reversed to match the array, so
    ``world = origin + direction @ (spacing * index)`` and ``world[::-1]`` is what ITK calls a point.

    Args:
        shape: voxels per axis, length n = 2 or 3.
        spacing: millimetres between voxel centres per axis, length n, positive.
        origin: world position of the centre of voxel 0, length n, mm.
        direction: n x n, column j is the world direction of array axis j; orthonormal.
        frame_of_reference_uid: DICOM frame of reference, empty where unknown.
        has_spacing: False where the source states no physical size (PNG, JPEG); spacing is then 1.

    Raises:
        ValueError: lengths differ, spacing not positive and finite, or direction not orthonormal.
    """

    shape: tuple[int, ...]
    spacing: Vector
    origin: Vector
    direction: Matrix
    frame_of_reference_uid: str = ""
    has_spacing: bool = True

    def __post_init__(self) -> None:
        n = len(self.shape)
        if n not in (2, 3):
            raise ValueError(f"a geometry has 2 or 3 axes, not {n}")
        if len(self.spacing) != n or len(self.origin) != n or np.shape(self.direction) != (n, n):
            raise ValueError(f"spacing, origin and direction must match the {n} axes of shape {self.shape}")
        if any(size < 1 for size in self.shape):
            raise ValueError(f"every axis needs at least one voxel, shape is {self.shape}")
        if not all(np.isfinite(s) and s > 0 for s in self.spacing):
            raise ValueError(f"spacing must be positive and finite, it is {self.spacing}")
        if not np.isfinite(self.origin).all():
            raise ValueError(f"origin must be finite, it is {self.origin}")
        matrix = np.asarray(self.direction)
        if not np.allclose(matrix.T @ matrix, np.eye(n), atol=1e-3):
            raise ValueError(f"direction must be orthonormal, it is {self.direction}")

    @classmethod
    def from_arrays(
        cls,
        shape: ArrayLike,
        spacing: ArrayLike | None = None,
        origin: ArrayLike | None = None,
        direction: ArrayLike | None = None,
        *,
        frame_of_reference_uid: str = "",
        has_spacing: bool = True,
    ) -> Geometry:
        """Build from anything array-like; absent spacing is 1 mm, origin 0, direction identity."""
        sizes = tuple(int(size) for size in np.asarray(shape).ravel())
        n = len(sizes)
        matrix = np.eye(n) if direction is None else np.asarray(direction, dtype=float).reshape(n, n)
        return cls(
            shape=sizes,
            spacing=_vector(spacing, np.ones(n)),
            origin=_vector(origin, np.zeros(n)),
            direction=tuple(tuple(float(v) for v in row) for row in matrix),
            frame_of_reference_uid=frame_of_reference_uid,
            has_spacing=has_spacing,
        )

    @property
    def ndim(self) -> int:
        """2 or 3."""
        return len(self.shape)

    @property
    def size_mm(self) -> Vector:
        """Extent per axis from the outer edge of the first voxel to that of the last, mm."""
        return tuple(n * s for n, s in zip(self.shape, self.spacing, strict=True))

    @cached_property
    def matrix(self) -> NDArray[np.float64]:
        """(n, n) matrix that takes an index offset to a world offset in mm."""
        return np.asarray(np.asarray(self.direction) * np.asarray(self.spacing), dtype=np.float64)

    @cached_property
    def affine(self) -> NDArray[np.float64]:
        """(n + 1, n + 1) homogeneous matrix from index to world, both in array order."""
        affine = np.eye(self.ndim + 1)
        affine[:-1, :-1] = self.matrix
        affine[:-1, -1] = self.origin
        return affine

    @property
    def is_axis_aligned(self) -> bool:
        """Whether every array axis runs along one world axis (no oblique angle)."""
        return bool(np.isclose(np.abs(np.asarray(self.direction)).max(axis=0), 1, atol=1e-4).all())

    def to_world(self, index: ArrayLike) -> NDArray[np.float64]:
        """World position in mm of voxel indices (..., n), array order in and out."""
        return np.asarray(np.asarray(index, dtype=float) @ self.matrix.T + np.asarray(self.origin))

    def to_index(self, world: ArrayLike) -> NDArray[np.float64]:
        """Continuous voxel index of world positions (..., n) in mm, array order in and out."""
        offset = np.asarray(world, dtype=float) - np.asarray(self.origin)
        return np.asarray(offset @ np.linalg.inv(self.matrix).T)

    def contains(self, index: ArrayLike) -> bool:
        """Whether an index (n,) lies inside the grid, half a voxel of margin included."""
        position = np.asarray(index, dtype=float)
        return bool(((position >= -0.5) & (position < np.asarray(self.shape) - 0.5)).all())

    def matches(self, other: Geometry, tolerance: float = 1e-3) -> bool:
        """Whether both grids have the same voxels: equal shape, corners within ``tolerance`` mm."""
        if self.shape != other.shape:
            return False
        corners = np.array(np.meshgrid(*[(0, n - 1) for n in self.shape])).reshape(self.ndim, -1).T
        return bool(np.abs(self.to_world(corners) - other.to_world(corners)).max() <= tolerance)

    def resampled(self, shape: tuple[int, ...]) -> Geometry:
        """The grid of ``shape`` voxels that fills exactly the same box."""
        spacing = np.asarray(self.size_mm) / np.asarray(shape)
        first = (spacing / np.asarray(self.spacing) - 1) / 2  # centre of the new voxel 0, in old indices
        return self._derived(shape, spacing, self.to_world(first))

    def cells(self, stride: tuple[int, ...]) -> Geometry:
        """The grid of cells of ``stride`` voxels, centred on them; the last cell may stick out."""
        shape = tuple(-(-n // s) for n, s in zip(self.shape, stride, strict=True))
        first = (np.asarray(stride) - 1) / 2
        return self._derived(shape, np.asarray(self.spacing) * stride, self.to_world(first))

    def cropped(self, start: tuple[int, ...], shape: tuple[int, ...]) -> Geometry:
        """The grid of the sub-array that begins at index ``start`` and has ``shape``."""
        return self._derived(shape, self.spacing, self.to_world(start))

    def _derived(self, shape: tuple[int, ...], spacing: ArrayLike, origin: ArrayLike) -> Geometry:
        return Geometry.from_arrays(
            shape,
            spacing,
            origin,
            self.direction,
            frame_of_reference_uid=self.frame_of_reference_uid,
            has_spacing=self.has_spacing,
        )


def _vector(value: ArrayLike | None, default: NDArray[np.float64]) -> Vector:
    return tuple(float(v) for v in np.asarray(default if value is None else value, dtype=float).ravel())
