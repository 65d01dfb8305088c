"""Triangles of PyBullet's shapes: OBJ and STL files, boxes, and its hulls of round shapes.

All functions but `read_texture` return triangles (T, 3, 3): corners in counter-clockwise order seen
from outside, metres (or a file's own unit), in the frame of the shape.

Example::

    triangles = read_mesh("link1.obj") * scale
    block = box((0.05, 0.04, 0.04))
"""

import math
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from langsteer.errors import UserError
from langsteer.reading import read_bytes

Triangles = NDArray[np.float64]
Points = NDArray[np.float64]

# Bullet draws a cylinder as the hull of a prism with so many sides, and all round shapes as the
# hull of their farthest points in 42 directions (URDFImporter, btShapeHull). A convex hull grows by
# the margin.
_PRISM_SIDES = 32
_HULL_MARGIN = 0.001

# Weights (15, 3) of the corners at points spread evenly within a triangle.
_WITHIN_TRIANGLE = (
    np.array([(i, j, 4 - i - j) for i in range(5) for j in range(5 - i)]) / 5 + 1 / 15
)

_MOST_BYTES = 1 << 28  # of a mesh and of its material; CALVIN's largest has 2^22
_STL_HEADER = 84
_STL_RECORD = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attributes", "<u2")])


def read_mesh(path: str | Path) -> Triangles:
    """All triangles of an ``.obj`` or ``.stl`` file; polygons become fans.

    Raises:
        UserError: the file is missing, damaged, empty or of another kind.
    """
    path = Path(path)
    readers = {".obj": _read_obj, ".stl": _read_stl}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise UserError(f"{path}: the depth renderer reads .obj and .stl; use renderer 'tiny'")
    try:
        triangles = reader(read_bytes(path, _MOST_BYTES))
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path}: the mesh cannot be read: {error.strerror}") from error
    except (ValueError, IndexError) as error:
        raise UserError(f"{path}: damaged mesh: {error}") from error
    # A corner that is no number would spoil the image far from its mesh.
    if not len(triangles) or not np.isfinite(triangles).all():
        raise UserError(f"{path}: the mesh has no triangle, or a corner that is not finite")
    return triangles


def read_texture(path: Path) -> NDArray[np.float64] | None:
    """Mean colour of the texture within each triangle of `read_mesh`, (T, 3) in [0, 1].

    The texture is the image named in the ``.obj`` file's material (``map_Kd``).

    Returns:
        None if the file names no texture, or the texture is missing: PyBullet then draws the shape
        in its plain colour.

    Raises:
        UserError: the texture is damaged.
    """
    texture = _texture_file(path)
    if texture is None:
        return None
    try:
        with Image.open(texture) as image:
            pixels = np.asarray(image.convert("RGB"), dtype=np.float64) / 255
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{texture}: damaged texture: {error}") from error
    corners = _texture_corners(read_bytes(path, _MOST_BYTES))
    if corners is None:
        return None
    # One colour a triangle: the mean of a few points within it.
    samples = _WITHIN_TRIANGLE @ corners
    height, width = pixels.shape[:2]
    # OBJ counts texture rows from the bottom, and repeats the image beyond its edges.
    column = np.floor(samples[..., 0] * width).astype(int) % width
    row = np.floor((1 - samples[..., 1]) * height).astype(int) % height
    mean: NDArray[np.float64] = pixels[row, column].mean(axis=1)
    return mean


def _texture_file(path: Path) -> Path | None:
    """The image in the first material of an ``.obj`` file, if it is present."""
    if path.suffix.lower() != ".obj":
        return None
    library = _word_after(path, "mtllib")
    if library is None:
        return None
    name = _word_after(path.parent / library, "map_Kd")
    # Some files name a path of the machine of their making; the image lies beside them.
    candidates = [] if name is None else [path.parent / name, path.parent / name.split("\\")[-1]]
    return next((file for file in candidates if file.is_file()), None)


def _word_after(path: Path, keyword: str) -> str | None:
    """The rest of the first line that begins with a keyword."""
    if not path.is_file():
        return None
    for line in read_bytes(path, _MOST_BYTES).decode(errors="replace").splitlines():
        if line.startswith(keyword + " "):
            return line.removeprefix(keyword).strip()
    return None


def _texture_corners(content: bytes) -> NDArray[np.float64] | None:
    """Texture coordinates (T, 3, 2) of all triangles' corners, or None if some lack them."""
    coordinates = [line.split()[1:3] for line in content.splitlines() if line.startswith(b"vt ")]
    corners: list[tuple[int, int, int]] = []
    for line in content.splitlines():
        if line.startswith(b"f "):
            words = [word.split(b"/") for word in line.split()[1:]]
            if any(len(word) < 2 or not word[1] for word in words):
                return None
            face = [_vertex_index(word[1], len(coordinates)) for word in words]
            corners.extend((face[0], *pair) for pair in pairwise(face[1:]))
    if not corners:
        return None
    return np.array(coordinates, dtype=np.float64)[np.array(corners)]


def _read_obj(content: bytes) -> Triangles:
    vertices: list[list[bytes]] = []
    corners: list[tuple[int, int, int]] = []
    for line in content.splitlines():
        if line.startswith(b"v "):
            vertices.append(line.split()[1:4])
        elif line.startswith(b"f "):
            face = [_vertex_index(word, len(vertices)) for word in line.split()[1:]]
            corners.extend((face[0], *pair) for pair in pairwise(face[1:]))
    if not corners:
        return np.empty((0, 3, 3))
    return np.array(vertices, dtype=np.float64)[np.array(corners)]


def _vertex_index(word: bytes, count: int) -> int:
    """The vertex of ``v/vt/vn``, from 0; OBJ counts from 1, or backwards from the last one."""
    index = int(word.split(b"/", 1)[0])
    return index - 1 if index > 0 else count + index


def _read_stl(content: bytes) -> Triangles:
    count = int.from_bytes(content[80:_STL_HEADER], "little")
    if len(content) == _STL_HEADER + count * _STL_RECORD.itemsize:
        records = np.frombuffer(content, _STL_RECORD, count, _STL_HEADER)
        return records["corners"].astype(np.float64)
    if not content.lstrip().startswith(b"solid"):
        raise ValueError(f"{len(content)} bytes, its header announces {count} triangles")
    rows = [line.split()[1:4] for line in content.splitlines() if b"vertex" in line]
    return np.array(rows, dtype=np.float64).reshape(-1, 3, 3)


def box(size: tuple[float, float, float]) -> Triangles:
    """The 12 triangles of a box with these edges around the origin."""
    corners = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
    faces = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    indices = [(a, *pair) for a, b, c, d in faces for pair in ((b, c), (c, d))]
    return (corners * np.asarray(size) / 2)[np.array(indices)]


def cylinder(length: float, radius: float) -> Triangles:
    """A cylinder along z around the origin, as coarse as Bullet draws it: 80 triangles."""
    angles = 2 * np.pi * np.arange(_PRISM_SIDES) / _PRISM_SIDES
    ring = radius * np.column_stack([np.sin(angles), np.cos(angles)])
    top, bottom = (np.column_stack([ring, np.full(_PRISM_SIDES, z)]) for z in (0.5, -0.5))
    prism = np.stack([top, bottom], axis=1).reshape(-1, 3) * (1, 1, length)
    directions = _hull_directions()
    # Bullet's ties go to the first corner: the top one for horizontal directions.
    farthest = prism[np.argmax(np.round(directions @ prism.T, 9), axis=1)]
    return convex_hull(farthest + _HULL_MARGIN * directions)


def sphere(radius: float) -> Triangles:
    """A sphere around the origin, as coarse as Bullet draws it: 80 triangles."""
    return convex_hull(radius * _hull_directions())


def _hull_directions() -> Points:
    """Bullet's 42 directions: an icosahedron's corners, two on the z axis, and its edges' middles.

    Rounded to the six decimals of Bullet's table.
    """
    height, radius = 1 / math.sqrt(5), 2 / math.sqrt(5)
    lower = [(math.radians(72 * k - 36), -height) for k in range(5)]
    upper = [(math.radians(72 * k), height) for k in range(5)]
    rings = [(radius * math.cos(a), radius * math.sin(a), z) for a, z in lower + upper]
    corners = np.array([(0, 0, -1), *rings, (0, 0, 1)])
    near = [(a, b) for a, b in combinations(corners, 2) if a @ b > 0]
    middles = np.array([(a + b) / np.linalg.norm(a + b) for a, b in near])
    return np.round(np.concatenate([corners, middles]), 6)


def convex_hull(points: Points) -> Triangles:
    """Triangles (T, 3, 3) of the hull of a few dozen points (N, 3), found by trying all triples.

    A flat face with more than three corners is covered more than once; depth does not notice.
    """
    scale = np.abs(points).max()
    triples = np.array(list(combinations(range(len(points)), 3)))
    a, b, c = (points[triples[:, k]] for k in range(3))
    normals = np.cross(b - a, c - a)
    lengths = np.linalg.norm(normals, axis=1)
    wide = lengths > 1e-9 * scale**2
    triples, normals, a = triples[wide], normals[wide] / lengths[wide, None], a[wide]
    heights = normals @ points.T - np.sum(normals * a, axis=1)[:, None]
    outward = (heights <= 1e-9 * scale).all(axis=1)
    inward = (heights >= -1e-9 * scale).all(axis=1) & ~outward
    return points[np.concatenate([triples[outward], triples[inward][:, ::-1]])]
