"""The cameras' renderers: TinyRenderer, EGL, or our depth renderer.

| name    | draws            | samples pixels at | needs |
|---------|------------------|-------------------|-------|
| depth   | depth, colours   | EGL's centres     | a CPU |
| tiny    | colour and depth | TinyRenderer's    | a CPU |
| egl     | colour and depth | EGL's centres     | a GPU; without one, Mesa gives 16-bit depth |

EGL drew the official CALVIN data; ``depth`` gives a policy the same clouds on any machine.
"""

import functools
import importlib.util
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from langsteer.calvin.cameras import (
    GRIPPER_CAMERA,
    PIXEL_CENTRE,
    STATIC_CAMERA,
    Camera,
    Pose,
    crop_corner,
    look_at_pose,
)
from langsteer.envs.physics import Physics, pybullet
from langsteer.envs.scene import RENDERERS, RendererName
from langsteer.errors import UserError

if TYPE_CHECKING:
    from langsteer.envs.depth_renderer import DepthRenderer, Frame

CAMERA_NAMES = ("static", "gripper")

_EGL_SUFFIX = "_eglRendererPlugin"
_EGL_SECONDS = 120
_EGL_TRIAL = """
import sys
import pybullet
world = pybullet.connect(pybullet.DIRECT)
if pybullet.loadPlugin(sys.argv[1], sys.argv[2]) >= 0:
    pybullet.getCameraImage(8, 8, renderer=pybullet.ER_BULLET_HARDWARE_OPENGL)
    print("EGL works", flush=True)
"""
_WITHOUT_EGL = "use renderer 'depth' or 'tiny'"

Image = NDArray[np.uint8]
Depth = NDArray[np.float32]


@dataclass(frozen=True)
class Viewpoint:
    """A camera at a place: its position, its aim, its upward direction; metres, world frame."""

    camera: Camera
    eye: tuple[float, float, float]
    target: tuple[float, float, float]
    up: tuple[float, float, float]

    def world_from_optical(self) -> Pose:
        """Pose (4, 4) of the optical frame: x right, y down, z forward."""
        return look_at_pose(self.eye, self.target, self.up)


def static_view() -> Viewpoint:
    """CALVIN's static camera."""
    return Viewpoint(
        STATIC_CAMERA, STATIC_CAMERA.look_from, STATIC_CAMERA.look_at, STATIC_CAMERA.up
    )


def gripper_view(position: tuple[float, ...], quaternion: tuple[float, ...]) -> Viewpoint:
    """CALVIN's gripper camera, from the pose of its link: it looks along +y, −z is up."""
    eye = np.array(position)
    rotation = np.array(pybullet.getMatrixFromQuaternion(quaternion)).reshape(3, 3)
    x, y, z = (eye + rotation[:, 1]).tolist()
    up_x, up_y, up_z = (-rotation[:, 2]).tolist()
    return Viewpoint(GRIPPER_CAMERA, tuple(eye.tolist()), (x, y, z), (up_x, up_y, up_z))


class Renderer(Protocol):
    """Draws views of one physics world.

    Attributes:
        name: recorded in results.
        pixel_centre: point at which a pixel is sampled, for turning depth into points.
    """

    name: RendererName
    pixel_centre: tuple[float, float]

    def empty_world(self) -> None:
        """Empty the world, and forget everything loaded from it."""

    def render(self, view: Viewpoint) -> tuple[Image, Depth]:
        """Colours (H, W, 3) uint8 and depth (H, W) float32 in metres along the camera's axis."""

    def render_depth(self, view: Viewpoint, crop: int | None = None) -> Depth:
        """Depth alone, (H, W) float32 in metres, or the central (crop, crop) pixels of it."""


class BulletRenderer:
    """PyBullet's own renderers: TinyRenderer on the CPU or the EGL plugin."""

    def __init__(self, physics: Physics, name: Literal["tiny", "egl"]) -> None:
        self.name: RendererName = name
        self.pixel_centre = PIXEL_CENTRE[name]
        self._physics = physics
        self._flag = pybullet.ER_TINY_RENDERER
        if name == "egl":
            _load_egl(physics)
            self._flag = pybullet.ER_BULLET_HARDWARE_OPENGL

    def empty_world(self) -> None:
        """See `Renderer.empty_world`."""
        if self.name != "egl":
            self._physics.empty()
            return
        # The plugin keeps the meshes of an emptied world (12 MB each time); a closed world takes
        # them with it.
        self._physics.reopen()
        _load_egl(self._physics)

    def render(self, view: Viewpoint) -> tuple[Image, Depth]:
        """See `Renderer.render`."""
        camera = view.camera
        width, height, colours, z_buffer, _ = self._physics.getCameraImage(
            width=camera.width,
            height=camera.height,
            viewMatrix=pybullet.computeViewMatrix(view.eye, view.target, view.up),
            projectionMatrix=pybullet.computeProjectionMatrixFOV(
                fov=camera.fov,
                aspect=camera.width / camera.height,
                nearVal=camera.near,
                farVal=camera.far,
            ),
            renderer=self._flag,
        )
        rgb = np.ascontiguousarray(
            np.reshape(np.asarray(colours, dtype=np.uint8), (height, width, 4))[:, :, :3]
        )
        # OpenGL's depth is not linear: near and far planes turn it into metres.
        z = np.reshape(np.asarray(z_buffer, dtype=np.float32), (height, width))
        # In float32, as in CALVIN: its files hold these roundings.
        scale, far, near = np.float32(camera.far * camera.near), camera.far, camera.near
        depth = scale / (np.float32(far) - np.float32(far - near) * z)
        return rgb, depth

    def render_depth(self, view: Viewpoint, crop: int | None = None) -> Depth:
        """See `Renderer.render_depth`; the whole image is drawn and then cut."""
        depth = self.render(view)[1]
        if crop is None:
            return depth
        left, top = crop_corner(view.camera, crop)
        return depth[top : top + crop, left : left + crop]


class FastRenderer:
    """Our renderer: depth as EGL has it, and flat colours lit like TinyRenderer's."""

    def __init__(self, physics: Physics) -> None:
        self.name: RendererName = "depth"
        self.pixel_centre = PIXEL_CENTRE["egl"]
        self._physics = physics
        self._drawer: DepthRenderer | None = None

    def empty_world(self) -> None:
        """See `Renderer.empty_world`; meshes are kept, for the same bodies are loaded again."""
        self._physics.empty()

    def render(self, view: Viewpoint, crop: int | None = None) -> tuple[Image, Depth]:
        """See `Renderer.render`; with ``crop``, nothing else is drawn."""
        return self._loaded().render_coloured(self._frame(view, crop))

    def render_depth(self, view: Viewpoint, crop: int | None = None) -> Depth:
        """See `Renderer.render_depth`; with ``crop``, nothing else is drawn."""
        return self._loaded().render(self._frame(view, crop))

    def _frame(self, view: Viewpoint, crop: int | None) -> "Frame":
        from langsteer.envs.depth_renderer import Frame

        camera = view.camera
        left, top = crop_corner(camera, crop)
        return Frame(
            view.world_from_optical(),
            camera.focal,
            camera.centre,
            camera.width,
            camera.height,
            camera.near,
            camera.far,
            self.pixel_centre,
            window=None if crop is None else (left, top, crop, crop),
        )

    def _loaded(self) -> "DepthRenderer":
        """The drawer, made when first needed: it reads every mesh and compiles its loops."""
        if self._drawer is None:
            from langsteer.envs.depth_renderer import DepthRenderer

            self._drawer = DepthRenderer(self._physics.client_id)
        return self._drawer


def make_renderer(name: str, physics: Physics) -> Renderer:
    """The renderer ``name`` for a world, made before its bodies: EGL draws only later ones.

    Raises:
        UserError: an unknown name, or its needs are missing on this machine.
    """
    if name == "tiny":
        return BulletRenderer(physics, "tiny")
    if name == "egl":
        return BulletRenderer(physics, "egl")
    if name == "depth":
        return FastRenderer(physics)
    raise UserError(f"no renderer {name!r}: expected one of {', '.join(RENDERERS)}")


def _load_egl(physics: Physics) -> None:
    """Make EGL the world's renderer."""
    plugin = importlib.util.find_spec("eglRenderer")
    if plugin is None or plugin.origin is None:
        raise UserError(
            "renderer 'egl': this PyBullet has no EGL plugin (it comes with the Linux wheels); "
            f"{_WITHOUT_EGL}"
        )
    # A broken EGL aborts its process, so another one tries first.
    _check_egl(plugin.origin)
    if physics.loadPlugin(plugin.origin, _EGL_SUFFIX) < 0:
        raise UserError(f"renderer 'egl': the EGL plugin did not load; {_WITHOUT_EGL}")


@functools.cache
def _check_egl(plugin: str) -> None:
    """Try EGL in a process of its own: a broken EGL ends its process.

    Raises:
        UserError: EGL does not work on this machine.
    """
    try:
        tried = subprocess.run(  # noqa: S603 - our own code, our own interpreter
            [sys.executable, "-c", _EGL_TRIAL, plugin, _EGL_SUFFIX],
            capture_output=True,
            text=True,
            timeout=_EGL_SECONDS,
        )
        works, said = "EGL works" in tried.stdout, (tried.stderr or tried.stdout)[-500:].strip()
    except subprocess.TimeoutExpired:
        works, said = False, f"no answer in {_EGL_SECONDS} seconds"
    if not works:
        raise UserError(
            "renderer 'egl': EGL does not work on this machine (on a cluster, ask for a GPU, and "
            f"look for libEGL of its driver); {_WITHOUT_EGL}. It said: {said}"
        )
