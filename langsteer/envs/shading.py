"""Colours of drawn triangles: one flat colour each, lit by one lamp as in PyBullet's TinyRenderer.

A triangle's colour is its shape's, times the mean of its texture within the triangle. The lamp is
TinyRenderer's: colour = albedo * (ambient + diffuse * max(0, normal . direction)), without shadows
and highlights. `tests/envs/test_colours.py` compares both renderers.

Example::

    surface = Surface.join([(meshlets_of_part_0, None), (meshlets_of_part_1, albedo_of_part_1)])
    rgb = surface.shade(owner, world_from_parts, rgba_of_parts)
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from langsteer.compiled import compiled
from langsteer.envs.meshlets import Floats, Integers, Meshlets

# TinyRenderer's defaults with z up (TinyRendererVisualShapeConverter.cpp).
LAMP = np.array([-50.0, 30.0, 100.0]) / np.linalg.norm([-50.0, 30.0, 100.0])
AMBIENT, DIFFUSE = 0.6, 0.35
BACKGROUND = 255


@dataclass(frozen=True)
class Surface:
    """The T triangles of all parts.

    Attributes:
        part: (T,) int64, the part of each triangle.
        normal: (T, 3) float64, outward unit normals in part frames.
        albedo: (T, 3) float64 in [0, 1], colours of textures; 1 without one.
    """

    part: Integers
    normal: Floats
    albedo: Floats

    @classmethod
    def join(cls, parts: Sequence[tuple[Meshlets, Floats | None]]) -> "Surface":
        """The surface of several parts in the order given, triangles as `Meshlets.join` has them.

        Args:
            parts: meshlets of each part, and the colours (T, 3) of its triangles in the order of
                `Meshlets.build`; None for white.
        """
        counts = [len(meshlets.triangles) for meshlets, _ in parts]
        albedo = [
            np.ones((count, 3)) if texture is None else texture[meshlets.source]
            for (meshlets, texture), count in zip(parts, counts, strict=True)
        ]
        return cls(
            part=np.repeat(np.arange(len(parts)), counts),
            normal=np.concatenate([_normals(meshlets) for meshlets, _ in parts]),
            albedo=np.concatenate(albedo),
        )

    def shade(
        self, owner: NDArray[np.int32], world_from_parts: Floats, rgba: Floats
    ) -> NDArray[np.uint8]:
        """Colours (H, W, 3) of an image with the triangles ``owner`` (H, W).

        Args:
            owner: -1 at a pixel without one.
            world_from_parts: rotations (parts, 3, 3).
            rgba: (parts, 4) in [0, 1], colours of the parts; opacity is ignored.
        """
        image = np.full((*owner.shape, 3), BACKGROUND, np.uint8)
        colours = np.ascontiguousarray(rgba[:, :3]) * 255
        _shade(image, owner, self.part, self.normal, self.albedo, world_from_parts, colours, LAMP)
        return image


@compiled
def _shade(
    image: NDArray[np.uint8],
    owner: NDArray[np.int32],
    part: Integers,
    normal: Floats,
    albedo: Floats,
    rotations: Floats,
    colours: Floats,
    lamp: Floats,
) -> None:
    for j in range(owner.shape[0]):
        for i in range(owner.shape[1]):
            t = owner[j, i]
            if t < 0:
                continue
            p = part[t]
            cosine = 0.0
            for k in range(3):
                across = 0.0
                for m in range(3):
                    across += rotations[p, k, m] * normal[t, m]
                cosine += across * lamp[k]
            light = AMBIENT + DIFFUSE * max(cosine, 0.0)
            for k in range(3):
                image[j, i, k] = np.uint8(min(255.0, colours[p, k] * albedo[t, k] * light + 0.5))


def _normals(meshlets: Meshlets) -> Floats:
    """(T, 3) unit normals of the triangles of one part."""
    per_meshlet = np.diff(meshlets.first_triangle)
    first = np.repeat(meshlets.first_corner[:-1], per_meshlet)
    a, b, c = (meshlets.corners[:, first + meshlets.triangles[:, k]].T for k in range(3))
    normal = np.cross(b - a, c - a)
    unit: Floats = normal / np.linalg.norm(normal, axis=1, keepdims=True)
    return unit
