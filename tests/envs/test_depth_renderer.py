"""Our depth renderer draws what PyBullet draws."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("pybullet")

import pybullet
from numpy.lib.stride_tricks import sliding_window_view

from langsteer.calvin.cameras import PIXEL_CENTRE, look_at_pose
from langsteer.envs import meshes
from langsteer.envs.calvin_env import CalvinEnv
from langsteer.envs.depth_renderer import DepthRenderer, Frame
from langsteer.envs.meshlets import Meshlets
from langsteer.envs.rasterizer import Viewport, draw
from langsteer.envs.rendering import BulletRenderer
from langsteer.errors import UserError

SIZE, FOV, NEAR, FAR = 120, 40.0, 0.05, 8.0
FOCAL = SIZE / (2 * np.tan(np.radians(FOV) / 2))
SILHOUETTE = 0.05  # metres between neighbouring pixels


@pytest.fixture
def world() -> Iterator[int]:
    """An empty PyBullet world, by its client id."""
    client = pybullet.connect(pybullet.DIRECT)
    yield client
    pybullet.disconnect(client)


def away_from_silhouettes(depth: np.ndarray) -> np.ndarray:
    around = sliding_window_view(np.pad(depth, 1, mode="edge"), (3, 3))
    return around.max((2, 3)) - around.min((2, 3)) < SILHOUETTE


def tiny(client: int, eye: Any, target: Any, up: Any = (0, 0, 1)) -> np.ndarray:
    """TinyRenderer's depth in metres."""
    z = pybullet.getCameraImage(
        SIZE,
        SIZE,
        pybullet.computeViewMatrix(eye, target, up),
        pybullet.computeProjectionMatrixFOV(FOV, 1.0, NEAR, FAR),
        renderer=pybullet.ER_TINY_RENDERER,
        physicsClientId=client,
    )[3]
    return FAR * NEAR / (FAR - (FAR - NEAR) * np.reshape(z, (SIZE, SIZE)).astype(np.float64))


def ours(
    renderer: DepthRenderer, eye: Any, target: Any, up: Any = (0, 0, 1), **options: Any
) -> np.ndarray:
    return renderer.render(frame(eye, target, up, **options))


def frame(eye: Any, target: Any, up: Any = (0, 0, 1), **options: Any) -> Frame:
    return Frame(
        look_at_pose(eye, target, up),
        FOCAL,
        (SIZE / 2, SIZE / 2),
        SIZE,
        SIZE,
        NEAR,
        FAR,
        PIXEL_CENTRE["tiny"],
        **options,
    )


def add(client: int, kind: int, position: Any = (0, 0, 0), mass: float = 0, **shape: Any) -> int:
    visual = pybullet.createVisualShape(kind, physicsClientId=client, **shape)
    return pybullet.createMultiBody(
        mass, -1, visual, position, pybullet.getQuaternionFromEuler((0.3, 0.5, 0.2)),
        physicsClientId=client,
    )  # fmt: skip


@pytest.mark.parametrize(
    "shape",
    [
        {"kind": "BOX", "halfExtents": (0.3, 0.2, 0.1)},
        {"kind": "SPHERE", "radius": 0.3},
        {"kind": "CYLINDER", "radius": 0.2, "length": 0.5},
    ],
    ids=lambda shape: shape["kind"].lower(),
)
def test_primitive_shapes_equal_tiny_renderer(world: int, shape: dict[str, Any]) -> None:
    options = {key: value for key, value in shape.items() if key != "kind"}
    add(world, getattr(pybullet, f"GEOM_{shape['kind']}"), **options)
    eye, target = (1.1, -0.9, 0.8), (0.05, 0, 0)
    expected, found = tiny(world, eye, target), ours(DepthRenderer(world), eye, target)
    compared = away_from_silhouettes(expected) & (expected < FAR - 0.1)
    assert compared.sum() > 500
    error = np.abs(found - expected)[compared]
    # Bullet flattens a cylinder's caps, whose corners differ by its margin of a millimetre.
    assert np.median(error) < (3e-4 if shape["kind"] == "CYLINDER" else 1e-4)
    assert np.percentile(error, 99) < 2e-3
    assert ((found < FAR - 0.1) == (expected < FAR - 0.1)).mean() > 0.995


@pytest.mark.parametrize("scene", ["D"])
def test_depth_equals_real_simulators_images(
    scene: str,
    traces: dict[str, dict[str, np.ndarray]],
    calvin_assets: Path,
    make_env: Callable[..., CalvinEnv],
) -> None:
    trace = traces[f"{scene}_render"]
    env = make_env(scene, calvin_assets, renderer="depth")
    env._renderer.pixel_centre = PIXEL_CENTRE["tiny"]
    env.reset(
        options={"robot_obs": trace["reset_robot_obs"], "scene_obs": trace["reset_scene_obs"]}
    )
    images = iter(
        zip(*(trace[key] for key in ("render_step", "depth_static", "depth_gripper")), strict=True)
    )
    step, *expected = next(images)
    compared = 0
    for index, action in enumerate(trace["rel_actions"], start=1):
        env.step(action)
        if index != step:
            continue
        for name, image in zip(("static", "gripper"), expected, strict=True):
            error = np.abs(env.render_depth(name) - image)[away_from_silhouettes(image)]
            assert np.median(error) < 1e-4, (step, name)
            assert np.percentile(error, 99) < 3e-4, (step, name)
            compared += 1
        step, *expected = next(images, (None, None, None))
    assert compared == 2 * len(trace["render_step"])


@pytest.mark.parametrize("scene", ["builtin", "A", "B", "C"])
def test_depth_equals_tiny_renderer_in_every_scene(
    scene: str, assets_of: Callable[[str], Path | None], make_env: Callable[..., CalvinEnv]
) -> None:
    env = make_env(scene, assets_of(scene), renderer="depth")
    env._renderer.pixel_centre = PIXEL_CENTRE["tiny"]
    env.reset(seed=3)
    tiny_renderer = BulletRenderer(env.physics, "tiny")
    for name in ("static", "gripper"):
        expected = tiny_renderer.render(env.view(name))[1]
        error = np.abs(env.render_depth(name) - expected)[away_from_silhouettes(expected)]
        assert np.median(error) < 2e-4
        assert np.percentile(error, 99) < 1e-3


def test_window_is_that_part_of_the_whole_image(make_env: Callable[..., CalvinEnv]) -> None:
    env = make_env(renderer="depth")
    env.reset(seed=0)
    whole = env.render_depth("static")
    crop = env._renderer.render_depth(env.view("static"), 160)
    np.testing.assert_allclose(crop, whole[20:180, 20:180], rtol=1e-6)


def test_drawing_leaves_physics_as_it_was(make_env: Callable[..., CalvinEnv]) -> None:
    seen, unseen = make_env(renderer="depth"), make_env(renderer="depth")
    rng = np.random.default_rng(0)
    for env in (seen, unseen):
        env.reset(seed=5)
    for _ in range(40):
        action = [*rng.uniform(-1, 1, 6), rng.choice([-1, 1])]
        for env in (seen, unseen):
            env.step(action)
        seen.render_depth("static")
        seen.render_depth("gripper")
    assert np.array_equal(seen.robot_obs, unseen.robot_obs)
    assert np.array_equal(seen.scene_obs, unseen.scene_obs)


def test_cached_background_never_shows_an_older_world(world: int) -> None:
    renderer = DepthRenderer(world)
    view = ((2.0, 0.0, 0.0), (0.0, 0.0, 0.0))
    wall = add(world, pybullet.GEOM_BOX, halfExtents=(0.1, 2, 2))
    ball = add(world, pybullet.GEOM_SPHERE, position=(0.6, 0, 0), mass=1, radius=0.1)
    images = [ours(renderer, *view) for _ in range(3)]
    assert np.array_equal(images[0], images[1])
    assert np.array_equal(images[0], images[2])

    turn = pybullet.getQuaternionFromEuler((0, 0, 0.4))
    pybullet.resetBasePositionAndOrientation(ball, (0.6, 0.3, 0), turn, physicsClientId=world)
    moved = ours(renderer, *view)
    assert np.array_equal(moved, ours(DepthRenderer(world), *view))
    assert not np.array_equal(moved, images[0])

    pybullet.resetBasePositionAndOrientation(wall, (-0.5, 0, 0), turn, physicsClientId=world)
    for _ in range(3):
        assert np.array_equal(ours(renderer, *view), ours(DepthRenderer(world), *view))

    pybullet.removeBody(wall, physicsClientId=world)
    assert np.array_equal(ours(renderer, *view), ours(DepthRenderer(world), *view))


def test_base_is_drawn_at_its_frame_and_not_at_its_centre_of_mass(
    world: int, tmp_path: Path
) -> None:
    urdf = tmp_path / "off_centre.urdf"
    urdf.write_text(
        '<robot name="r"><link name="a"><inertial><origin xyz="0.2 0.1 -0.1" rpy="0.3 0 0"/>'
        '<mass value="1"/><inertia ixx="1" iyy="1" izz="1" ixy="0" ixz="0" iyz="0"/></inertial>'
        '<visual><geometry><box size="0.3 0.2 0.1"/></geometry></visual></link></robot>'
    )
    pybullet.loadURDF(str(urdf), (0.1, 0.2, 0), physicsClientId=world)
    eye, target = (1.5, -0.5, 0.8), (0, 0, 0)
    expected = tiny(world, eye, target)
    error = np.abs(ours(DepthRenderer(world), eye, target) - expected)
    assert np.median(error[away_from_silhouettes(expected) & (expected < FAR - 0.1)]) < 2e-4


def test_camera_inside_a_box_sees_through_its_back_faces(world: int) -> None:
    add(world, pybullet.GEOM_BOX, halfExtents=(0.2, 0.2, 0.2))
    add(world, pybullet.GEOM_BOX, position=(2, 0, 0), halfExtents=(0.5, 0.5, 0.5))
    depth = ours(DepthRenderer(world), (0, 0, 0), (1, 0, 0))
    assert 1.0 < depth[SIZE // 2, SIZE // 2] < 2.0


def draw_one(triangles: np.ndarray, window: Viewport, size: tuple[int, int]) -> np.ndarray:
    """Depth of triangles given in the optical frame."""
    image = np.full(size, 1 / window.far, np.float32)
    draw(image, Meshlets.build([triangles]), np.eye(4)[None, :3], np.ones(1, np.bool_), window)
    return 1 / image


def test_floor_through_the_camera_is_cut_at_the_near_plane() -> None:
    # A floor 0.5 m below (y is down) that reaches from far behind to far ahead of the camera.
    corners = np.array([[-50, 0.5, -50], [50, 0.5, -50], [50, 0.5, 50], [-50, 0.5, 50]])
    floor = corners[[[0, 3, 2], [0, 2, 1]]]
    floor = floor if np.cross(*(floor[0, 1:] - floor[0, 0]))[1] < 0 else floor[:, ::-1]
    window = Viewport(focal=50.0, column=50.0, row=50.0, near=0.1, far=20.0)
    depth = draw_one(floor.astype(np.float64), window, (101, 101))
    rows = np.arange(53, 101)
    expected = 0.5 * 50.0 / (rows - 50)
    np.testing.assert_allclose(depth[rows], np.tile(expected[:, None], 101), rtol=1e-5)
    assert (depth[:50] == 20.0).all()


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1))
def test_culling_meshlets_changes_no_pixel(seed: int) -> None:
    rng = np.random.default_rng(seed)
    hull = meshes.convex_hull(rng.normal(size=(20, 3)))
    # Many small triangles, so that the hull falls into several meshlets.
    for _ in range(2):
        middle = (hull + np.roll(hull, -1, axis=1)) / 2
        hull = np.concatenate(
            [np.stack([hull[:, k], middle[:, k], middle[:, k - 1]], axis=1) for k in range(3)]
            + [middle]
        )
    hull = hull * rng.uniform(0.1, 1.0) + (*rng.uniform(-2, 2, 2), rng.uniform(-0.5, 3.0))
    window = Viewport(focal=40.0, column=31.5, row=23.5, near=0.1, far=9.0)
    expected = np.full((48, 64), 9.0)
    for triangle in hull:  # one by one: each has a meshlet of its own
        expected = np.minimum(expected, draw_one(triangle[None], window, (48, 64)))
    np.testing.assert_allclose(draw_one(hull, window, (48, 64)), expected, rtol=1e-5)


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_neighbouring_triangles_leave_no_gap(seed: int) -> None:
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(np.linspace(-2, 2, 12), np.linspace(-2, 2, 12)), axis=-1)
    grid[1:-1, 1:-1] += rng.uniform(-0.1, 0.1, (10, 10, 2))
    corners = np.concatenate([grid, np.full((12, 12, 1), 1.5)], axis=-1)
    a, b, c, d = corners[:-1, :-1], corners[:-1, 1:], corners[1:, 1:], corners[1:, :-1]
    quads = np.concatenate([np.stack([a, d, c], 2), np.stack([a, c, b], 2)]).reshape(-1, 3, 3)
    window = Viewport(focal=40.0, column=31.5, row=23.5, near=0.1, far=9.0)
    np.testing.assert_allclose(draw_one(quads, window, (48, 64)), 1.5, rtol=1e-6)


def test_ascii_and_binary_stl_and_obj_give_the_same_triangles(tmp_path: Path) -> None:
    triangles = meshes.box((1, 2, 3))
    lines = [f"vertex {x} {y} {z}" for x, y, z in triangles.reshape(-1, 3)]
    (tmp_path / "a.stl").write_text("solid box\n" + "\n".join(lines) + "\nendsolid\n")
    records = b"".join(
        np.concatenate([[np.zeros(3)], triangle]).astype("<f4").tobytes() + b"\0\0"
        for triangle in triangles
    )
    header = b"solid but binary".ljust(80) + len(triangles).to_bytes(4, "little")
    (tmp_path / "b.STL").write_bytes(header + records)
    vertices = [f"v {x} {y} {z}" for x, y, z in triangles.reshape(-1, 3)]
    faces = [f"f {3 * k + 1}/1/1 {3 * k + 2}//2 {3 * k + 3}" for k in range(6)]
    faces += [f"f -{3 * k} -{3 * k - 1} -{3 * k - 2}" for k in range(6, 0, -1)]
    (tmp_path / "c.obj").write_text("\n".join(["# box", *vertices, *faces]))
    for name in ("a.stl", "b.STL", "c.obj"):
        np.testing.assert_allclose(meshes.read_mesh(tmp_path / name), triangles)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.obj", b"v 0 0 0\nv 1 0 0\nf 1 2 3\n", "damaged"),
        ("a.obj", b"v 0 0\nv 1 0 0\nv 1 1 0\nf 1 2 3\n", "damaged"),
        ("a.obj", b"# nothing\n", "no triangle"),
        ("a.obj", b"v nan 0 0\nv 1 0 0\nv 1 1 0\nf 1 2 3\n", "not finite"),
        ("a.stl", b"x" * 100, "damaged"),
        ("a.dae", b"<collada/>", "reads .obj and .stl"),
    ],
)
def test_damaged_mesh_is_named(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=says) as caught:
        meshes.read_mesh(tmp_path / name)
    assert name in str(caught.value)


def test_missing_mesh_and_empty_world_are_named(tmp_path: Path, world: int) -> None:
    with pytest.raises(UserError, match=r"gone\.obj"):
        meshes.read_mesh(tmp_path / "gone.obj")
    with pytest.raises(UserError, match="nothing to draw"):
        ours(DepthRenderer(world), (1, 0, 0), (0, 0, 0))
    add(world, pybullet.GEOM_CAPSULE, radius=0.1, length=0.2)
    with pytest.raises(UserError, match="cannot draw"):
        ours(DepthRenderer(world), (1, 0, 0), (0, 0, 0))
