"""Depth and colours of a PyBullet world without a GPU and without TinyRenderer, 30 times faster.

It draws PyBullet's visual shapes (``getVisualShapeData``) at the present poses of their links.
Depth agrees with CALVIN's official images within 0.1 mm; colours are those of
`langsteer.envs.shading`. Fresh link poses do not disturb the physics. But once asked for
them, PyBullet reports its link states a substep ahead: read those first.

Example::

    renderer = DepthRenderer(client_id)
    frame = Frame(world_from_optical, focal=1143.0, centre=(100, 100), width=200, height=200,
                  near=0.01, far=10.0, pixel_centre=(0.5, 0.5))
    depth = renderer.render(frame)
    colours, depth = renderer.render_coloured(frame)

For a camera at rest, everything fixed is drawn once, and copied from then on.
"""

import functools
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langsteer.envs import meshes
from langsteer.envs.meshlets import Meshlets
from langsteer.envs.physics import pybullet
from langsteer.envs.rasterizer import Viewport, draw
from langsteer.envs.shading import Surface
from langsteer.errors import UserError

Pose = NDArray[np.float64]
ShapeKey = tuple[int, tuple[float, ...], bytes]

CAMERAS_REMEMBERED = 8
MESHES_REMEMBERED = 256


@dataclass(frozen=True)
class Frame:
    """The place of a camera, and the pixels to draw of its image.

    Attributes:
        world_from_optical: pose (4, 4) of the camera: x right, y down, z forward.
        focal: focal length in pixels.
        centre: principal point (u, v) in pixels from the image's top left corner.
        width, height: of the whole image.
        near, far: nearest and farthest depth drawn, metres.
        pixel_centre: pixel (u, v) is sampled at (u, v) plus this.
        window: (left, top, width, height) of the part to draw; None for all of it.
    """

    world_from_optical: Pose
    focal: float
    centre: tuple[float, float]
    width: int
    height: int
    near: float
    far: float
    pixel_centre: tuple[float, float]
    window: tuple[int, int, int, int] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the part to draw."""
        _, _, columns, rows = self.window or (0, 0, self.width, self.height)
        return rows, columns

    @property
    def camera(self) -> Viewport:
        """The part to draw, in the rasteriser's terms."""
        left, top, *_ = self.window or (0, 0)
        column, row = self.centre[0] - self.pixel_centre[0], self.centre[1] - self.pixel_centre[1]
        return Viewport(self.focal, column - left, row - top, self.near, self.far)


@dataclass(frozen=True)
class _Shape:
    """One visual shape: its link, its kind, and its pose on the link (4, 4)."""

    body: int
    link: int
    key: ShapeKey
    link_from_shape: Pose


@dataclass
class _Image:
    """1 / depth (H, W) float32, and the triangle of each pixel (H, W) int32, -1 for none.

    ``owner`` is None if depth alone is drawn.
    """

    inverse_depth: NDArray[np.float32]
    owner: NDArray[np.int32] | None

    @classmethod
    def empty(cls, size: tuple[int, int], far: float, coloured: bool) -> "_Image":
        return cls(
            np.full(size, 1.0 / far, dtype=np.float32),
            np.full(size, -1, dtype=np.int32) if coloured else None,
        )

    def copy(self) -> "_Image":
        return _Image(self.inverse_depth.copy(), None if self.owner is None else self.owner.copy())


@dataclass
class _Camera:
    """The memory of a camera at one place: the image of everything fixed."""

    fixed_poses: NDArray[np.float64]
    background: _Image | None = None


class DepthRenderer:
    """Draws the world of one PyBullet client; follows bodies that come and go.

    Args:
        client_id: the client's number.
    """

    def __init__(self, client_id: int) -> None:
        self._client_id = client_id
        self._signature: list[Any] | None = None
        self._cameras: OrderedDict[tuple[Any, ...], _Camera] = OrderedDict()
        self._surface: Surface | None = None  # read when colours are first asked for

    def render(self, frame: Frame) -> NDArray[np.float32]:
        """Depth (H, W) float32 along the optical axis in metres, ``far`` at empty pixels.

        Raises:
            UserError: a body's mesh cannot be read.
        """
        self._follow_bodies()
        image = self._draw(frame, self._world_from_shapes(), coloured=False)
        return np.reciprocal(image.inverse_depth, out=image.inverse_depth)

    def render_coloured(self, frame: Frame) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Colours (H, W, 3) uint8, white at empty pixels, and the depth of `render`.

        Raises:
            UserError: a body's mesh or texture cannot be read.
        """
        self._follow_bodies()
        poses = self._world_from_shapes()
        image = self._draw(frame, poses, coloured=True)
        if self._surface is None:
            parts = [(_meshlets(key), _albedo(key)) for key in self._keys]
            self._surface = Surface.join(parts)
        assert image.owner is not None
        colours = self._surface.shade(image.owner, poses[:, :3, :3], self._rgba)
        return colours, np.reciprocal(image.inverse_depth, out=image.inverse_depth)

    def _draw(self, frame: Frame, poses: NDArray[np.float64], coloured: bool) -> _Image:
        """The image of all shapes at ``poses`` (shapes, 4, 4), world frame."""
        # Fixed parts are most of the triangles: a camera at rest copies their image.
        optical_from_shapes = (np.linalg.inv(frame.world_from_optical) @ poses)[:, :3]
        image = self._background(frame, poses, optical_from_shapes, coloured)
        drawn = self._all if image is None else ~self._fixed
        if image is None:
            image = _Image.empty(frame.size, frame.far, coloured)
        self._draw_onto(image, optical_from_shapes, drawn, frame.camera)
        return image

    def _draw_onto(
        self,
        image: _Image,
        optical_from_shapes: NDArray[np.float64],
        drawn: NDArray[np.bool_],
        camera: Viewport,
    ) -> None:
        draw(image.inverse_depth, self._meshlets, optical_from_shapes, drawn, camera, image.owner)

    def _background(
        self,
        frame: Frame,
        poses: NDArray[np.float64],
        optical_from_shapes: NDArray[np.float64],
        coloured: bool,
    ) -> _Image | None:
        """A copy of the image of everything fixed, from a camera's second image at a place on."""
        key = (frame.world_from_optical.tobytes(), frame.camera, frame.size, coloured)
        fixed_poses = poses[self._fixed]
        known = self._cameras.get(key)
        # A place seen once gets no background: a moving camera would never use it.
        if known is None or not np.array_equal(known.fixed_poses, fixed_poses):
            self._cameras[key] = _Camera(fixed_poses)
            if len(self._cameras) > CAMERAS_REMEMBERED:
                self._cameras.popitem(last=False)
            return None
        self._cameras.move_to_end(key)
        if known.background is None:
            known.background = _Image.empty(frame.size, frame.far, coloured)
            self._draw_onto(known.background, optical_from_shapes, self._fixed, frame.camera)
        return known.background.copy()

    def _follow_bodies(self) -> None:
        """Read the shapes anew if bodies have come, gone or changed."""
        client = self._client_id
        count = pybullet.getNumBodies(physicsClientId=client)
        bodies = [pybullet.getBodyUniqueId(index, physicsClientId=client) for index in range(count)]
        shapes = [pybullet.getVisualShapeData(body, physicsClientId=client) for body in bodies]
        # Colours change while shapes stay: a light that is switched on.
        self._rgba = np.array([shape[7] for of_body in shapes for shape in of_body])
        signature = [shape[:7] for of_body in shapes for shape in of_body]
        # Reading meshes takes long, so it waits for a change of the bodies.
        if signature != self._signature:
            self._read(signature)
            self._signature = signature
            self._cameras.clear()

    def _read(self, signature: list[Any]) -> None:
        shapes = [_shape(entry) for entry in signature]
        if not shapes:
            raise UserError("this PyBullet world has nothing to draw: load its bodies first")
        self._keys = [shape.key for shape in shapes]
        self._meshlets = Meshlets.join([_meshlets(key) for key in self._keys])
        self._surface = None
        self._link_from_shapes = np.stack([shape.link_from_shape for shape in shapes])
        self._all = np.ones(len(shapes), dtype=np.bool_)
        bodies = sorted({shape.body for shape in shapes})
        self._body_links = {
            body: sorted({shape.link for shape in shapes if shape.body == body}) for body in bodies
        }
        frames = [(body, link) for body in bodies for link in self._body_links[body]]
        self._frame_of_shape = [frames.index((shape.body, shape.link)) for shape in shapes]
        self._base_from_inertial = {body: self._inertial_frame(body) for body in bodies}
        fixed = {frame: self._is_fixed(*frame) for frame in frames}
        self._fixed = np.array([fixed[shape.body, shape.link] for shape in shapes])

    def _inertial_frame(self, body: int) -> Pose:
        """The base's centre of mass in its link frame; PyBullet gives base poses of the former."""
        info = pybullet.getDynamicsInfo(body, -1, physicsClientId=self._client_id)
        return np.linalg.inv(_pose(info[3], info[4])).astype(np.float64)

    def _is_fixed(self, body: int, link: int) -> bool:
        """Whether no joint moves this link and nothing moves its base: its mass is 0 there."""
        client = self._client_id
        while link >= 0:
            info = pybullet.getJointInfo(body, link, physicsClientId=client)
            if info[2] != pybullet.JOINT_FIXED:
                return False
            link = info[16]
        return pybullet.getDynamicsInfo(body, -1, physicsClientId=client)[0] == 0

    def _world_from_shapes(self) -> NDArray[np.float64]:
        """Poses (shapes, 4, 4) of this moment, asked anew: PyBullet's own are a substep old."""
        client = self._client_id
        frames = []
        for body, links in self._body_links.items():
            if links[0] < 0:
                base = pybullet.getBasePositionAndOrientation(body, physicsClientId=client)
                frames.append(_pose(*base) @ self._base_from_inertial[body])
            states = pybullet.getLinkStates(
                body,
                [link for link in links if link >= 0],
                computeForwardKinematics=True,
                physicsClientId=client,
            )
            # Fields 4 and 5 are the link's own frame, the first two that of its centre of mass.
            frames += [_pose(state[4], state[5]) for state in states or ()]
        return np.stack(frames)[self._frame_of_shape] @ self._link_from_shapes


def _pose(position: tuple[float, ...], quaternion: tuple[float, ...]) -> Pose:
    """A (4, 4) matrix from a position and a quaternion (x, y, z, w)."""
    pose = np.eye(4)
    pose[:3, :3] = np.reshape(pybullet.getMatrixFromQuaternion(quaternion), (3, 3))
    pose[:3, 3] = position
    return pose


def _shape(entry: tuple[Any, ...]) -> _Shape:
    body, link, kind, size, mesh_file, position, quaternion = entry
    return _Shape(body, link, (kind, size, mesh_file), _pose(position, quaternion))


@functools.lru_cache(maxsize=MESHES_REMEMBERED)
def _meshlets(key: ShapeKey) -> Meshlets:
    """Read and group a shape once in a process: worlds load the same ones over and over."""
    return Meshlets.build([_triangles(*key)])


@functools.lru_cache(maxsize=MESHES_REMEMBERED)
def _albedo(key: ShapeKey) -> NDArray[np.float64] | None:
    """(T, 3) colours of the texture of a shape's triangles, as given; None without a texture."""
    kind, _, mesh_file = key
    return meshes.read_texture(Path(mesh_file.decode())) if kind == pybullet.GEOM_MESH else None


def _triangles(kind: int, size: tuple[float, ...], mesh_file: bytes) -> meshes.Triangles:
    """The triangles of fields 2, 3 and 4 of PyBullet's visual shape."""
    if kind == pybullet.GEOM_MESH:
        scaled = meshes.read_mesh(Path(mesh_file.decode())) * np.array(size)
        return scaled[:, ::-1] if np.prod(size) < 0 else scaled  # a mirror turns corners around
    if kind == pybullet.GEOM_BOX:
        return meshes.box((size[0], size[1], size[2]))
    if kind == pybullet.GEOM_SPHERE:
        return meshes.sphere(size[0])
    if kind == pybullet.GEOM_CYLINDER:
        return meshes.cylinder(size[0], size[1])
    raise UserError(
        f"the depth renderer cannot draw PyBullet's shape {kind}: it draws meshes, boxes, spheres "
        "and cylinders; use renderer 'tiny'"
    )
