"""Our renderer colours as TinyRenderer does, but for the textures' grain and highlights."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pybullet")

from langsteer.envs import meshes
from langsteer.envs.calvin_env import CalvinEnv
from langsteer.envs.rendering import BulletRenderer
from langsteer.errors import UserError

LED, LIGHTBULB = 5, 4


@pytest.mark.parametrize("scene", ["builtin", "A", "D"])
def test_colours_are_near_those_of_tiny_renderer(
    scene: str, assets_of: Callable[[str], Path | None], make_env: Callable[..., CalvinEnv]
) -> None:
    env = make_env(scene, assets_of(scene), renderer="depth")
    env.reset(seed=3)
    for name in ("static", "gripper"):
        expected = BulletRenderer(env.physics, "tiny").render(env.view(name))[0].astype(float)
        found = env.render_camera(name)[0].astype(float)
        np.testing.assert_allclose(found.mean((0, 1)), expected.mean((0, 1)), atol=8)
        assert np.median(np.abs(found - expected)) < 15


def test_depth_is_the_same_with_colours(make_env: Callable[..., CalvinEnv]) -> None:
    env = make_env(renderer="depth")
    env.reset(seed=0)
    for _ in range(3):  # the third image comes from the remembered background
        np.testing.assert_array_equal(env.render_camera("static")[1], env.render_depth("static"))


def test_a_light_changes_its_colour_when_it_is_switched_on(
    make_env: Callable[..., CalvinEnv],
) -> None:
    env = make_env(renderer="depth")
    scene = np.zeros(24)
    scene[6:] = np.array([[x, -0.1, 0.46, 0, 0, 0] for x in (0.1, 0.2, 0.3)]).ravel()
    images = []
    for lit in (0.0, 1.0):
        scene[LED] = lit
        env.reset(options={"scene_obs": scene})
        images.append(env.render_camera("static")[0].astype(int))
    changed = np.abs(images[1] - images[0]).sum(-1) > 60
    assert 3 < changed.sum() < 400
    red, green, blue = images[1][changed].mean(0)
    assert green > red + 60
    assert green > blue + 60


def test_damaged_texture_is_named(tmp_path) -> None:
    mesh = tmp_path / "part.obj"
    mesh.write_text(
        "mtllib part.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\nf 1/1 2/2 3/3\n"
    )
    assert meshes.read_texture(mesh) is None
    (tmp_path / "part.mtl").write_text("newmtl one\nmap_Kd wood.png\n")
    assert meshes.read_texture(mesh) is None
    (tmp_path / "wood.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"wood\.png: damaged texture"):
        meshes.read_texture(mesh)
