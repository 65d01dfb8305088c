"""Triangles in meshlets: small groups of neighbours facing the same way.

Example::

    meshlets = Meshlets.build([triangles_of_part_0, triangles_of_part_1])
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langsteer.envs.meshes import Triangles

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

MESHLET_TRIANGLES = 32
_MORTON_BITS = 10


@dataclass(frozen=True)
class Meshlets:
    """The triangles of all parts, in groups, in part frames; M meshlets, V corners, T triangles.

    Attributes:
        part: (M,) int64, the part of each meshlet.
        corners: (3, V) float64, metres: all x, all y, all z; each meshlet has its own, in a row.
        triangles: (T, 3) int64, corners counted within the meshlet.
        source: (T,) int64, the index of each triangle among its part's, as given.
        first_corner, first_triangle: (M + 1,) int64, the first row of each meshlet.
        centre, radius: (M, 3) and (M,) float64, a sphere around the meshlet.
        axis, cutoff: (M, 3) and (M,) float64: the mean normal, and the sine of the widest angle of
            a normal to it; a cutoff over 1 if normals differ by 90 degrees and more.
    """

    part: Integers
    corners: Floats
    triangles: Integers
    source: Integers
    first_corner: Integers
    first_triangle: Integers
    centre: Floats
    radius: Floats
    axis: Floats
    cutoff: Floats

    @classmethod
    def build(cls, parts: Sequence[Triangles]) -> "Meshlets":
        """Group the triangles (T_p, 3, 3) of every part."""
        return cls.join([_part_meshlets(triangles) for triangles in parts])

    @classmethod
    def join(cls, parts: Sequence["Meshlets"]) -> "Meshlets":
        """Meshlets of several parts, numbered in the order given, as one."""
        joined: dict[str, NDArray[Any]] = {}
        for field in fields(cls):
            arrays = [getattr(each, field.name) for each in parts]
            # Parts are numbered anew, and starts of rows are counted on.
            if field.name == "part":
                arrays = [np.full(len(array), index) for index, array in enumerate(arrays)]
            if field.name.startswith("first"):
                counts = [np.zeros(1, np.int64), *(np.diff(array) for array in arrays)]
                joined[field.name] = np.cumsum(np.concatenate(counts))
            else:
                # The corners' axes come first; all else has a row for each item.
                joined[field.name] = np.concatenate(
                    arrays, axis=1 if field.name == "corners" else 0
                )
        return cls(**joined)


def _part_meshlets(triangles: Triangles) -> Meshlets:
    """Meshlets of one part; triangles without area are left out."""
    normals = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    lengths = np.linalg.norm(normals, axis=1)
    wide = lengths > 0
    given = np.flatnonzero(wide)
    triangles, normals = triangles[wide], normals[wide] / lengths[wide, None]
    # Neighbours that face alike go together: one test then drops or keeps them all.
    order = np.lexsort((_morton(triangles.mean(axis=1)), _facing(normals)))
    groups = np.split(order, range(MESHLET_TRIANGLES, len(order), MESHLET_TRIANGLES))
    corners, indices, bounds = [], [], []
    for group in groups:
        # Shared corners are projected once.
        unique, index = np.unique(triangles[group].reshape(-1, 3), axis=0, return_inverse=True)
        corners.append(unique)
        indices.append(index.reshape(-1, 3))
        bounds.append((*_sphere(unique), *_cone(normals[group])))
    centre, radius, axis, cutoff = zip(*bounds, strict=True)
    return Meshlets(
        part=np.zeros(len(groups), np.int64),
        corners=np.ascontiguousarray(np.concatenate(corners).T),
        triangles=np.concatenate(indices).astype(np.int64),
        source=given[order],
        first_corner=np.cumsum([0, *map(len, corners)]),
        first_triangle=np.cumsum([0, *map(len, indices)]),
        centre=np.array(centre),
        radius=np.array(radius),
        axis=np.array(axis),
        cutoff=np.array(cutoff),
    )


def _facing(normals: Floats) -> Integers:
    """The nearest of the six directions along the axes, for each normal."""
    axis = np.argmax(np.abs(normals), axis=1)
    return 2 * axis + (normals[np.arange(len(normals)), axis] > 0)


def _morton(points: Floats) -> Integers:
    """Numbers in an order that keeps near points near: the bits of x, y, z in turn."""
    low, high = points.min(axis=0), points.max(axis=0)
    cells = (points - low) / np.maximum(high - low, 1e-12) * (2**_MORTON_BITS - 1)
    code = np.zeros(len(points), np.int64)
    for bit in range(_MORTON_BITS):
        for axis in range(3):
            code |= ((cells[:, axis].astype(np.int64) >> bit) & 1) << (3 * bit + axis)
    return code


def _sphere(points: Floats) -> tuple[Floats, float]:
    centre = (points.min(axis=0) + points.max(axis=0)) / 2
    return centre, float(np.linalg.norm(points - centre, axis=1).max())


def _cone(normals: Floats) -> tuple[Floats, float]:
    axis = normals.mean(axis=0)
    axis = axis / max(float(np.linalg.norm(axis)), 1e-12)
    cosine = float((normals @ axis).min())
    return axis, math.sqrt(max(0.0, 1.0 - cosine**2)) + 1e-9 if cosine > 0 else 2.0
