"""Which assets are accepted, and what is said about those that are not."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pybullet")

from langsteer.calvin.scene_obs import DRAWER_RANGE, SLIDER_RANGE, SWITCH_RANGE
from langsteer.envs import scene_config
from langsteer.envs.scene import SCENES
from langsteer.envs.scene_config import load_scene
from langsteer.errors import UserError
from langsteer.experts.view import read_layout


@pytest.fixture
def checkout(calvin_assets, tmp_path) -> Path:
    """A copy that may be spoiled; meshes are links to the originals."""
    root = tmp_path / "calvin_env"
    shutil.copytree(calvin_assets / "conf", root / "conf")
    shutil.copytree(
        calvin_assets / "data", root / "data", copy_function=lambda a, b: Path(b).symlink_to(a)
    )
    for folder in root.rglob("*"):
        if folder.is_dir():
            folder.chmod(0o755)
    return root


@pytest.mark.parametrize(
    ("scene", "blocks"),
    [
        ("A", ["block_pink", "block_blue", "block_red"]),
        ("B", ["block_red", "block_blue", "block_pink"]),
        ("C", ["block_blue", "block_red", "block_pink"]),
        ("D", ["block_red", "block_blue", "block_pink"]),
        ("calvin_scene_D", ["block_red", "block_blue", "block_pink"]),
    ],
)
def test_order_of_blocks_is_the_files(scene, blocks, calvin_assets):
    assert [block.name for block in load_scene(scene, calvin_assets).blocks] == blocks


def test_checkout_is_found_by_the_environment_variable(calvin_assets, monkeypatch):
    monkeypatch.setenv("CALVIN_ENV_ROOT", str(calvin_assets))
    assert load_scene("A").table_urdf.is_file()


@pytest.mark.parametrize("is_here", [True, False], ids=["in this folder", "in LangSteer's"])
def test_fetched_checkout_is_found_by_itself(is_here, calvin_assets, tmp_path, monkeypatch):
    here, checkout = tmp_path / "here", tmp_path / "checkout"
    monkeypatch.delenv("CALVIN_ENV_ROOT", raising=False)
    monkeypatch.setattr(scene_config, "_CHECKOUT", checkout)
    here.mkdir()
    monkeypatch.chdir(here)
    fetched = (here if is_here else checkout) / "third_party" / "calvin_env"
    fetched.parent.mkdir(parents=True)
    fetched.symlink_to(calvin_assets)
    assert load_scene("A").table_urdf.is_file()
    fetched.unlink()
    with pytest.raises(UserError, match=r"CALVIN_ENV_ROOT.*setup_calvin.sh"):
        load_scene("A")


def test_builtin_scene_needs_no_checkout(monkeypatch):
    monkeypatch.setenv("CALVIN_ENV_ROOT", "/nonexistent")
    assert load_scene("builtin").table_urdf.is_file()


@pytest.mark.parametrize("folder", [".", "missing"])
def test_folder_that_is_no_checkout_is_named(folder, tmp_path):
    place = tmp_path / folder
    says = f"{re.escape(str(place))}: no folder 'data'.*checkout of mees/calvin_env"
    with pytest.raises(UserError, match=says):
        load_scene("D", place)


@pytest.mark.parametrize(
    "part",
    [
        "conf/scene/calvin_scene_D.yaml",
        "data/franka_panda/panda_longer_finger.urdf",
        "data/calvin_table_D/meshes/drawer_link_vhacd2.obj",
        "data/blocks/block_pink_big.urdf",
    ],
)
def test_missing_file_is_named(part, checkout):
    (checkout / part).unlink()
    with pytest.raises(UserError, match=f"{Path(part).name}: no such file"):
        load_scene("D", checkout)


def test_pointer_of_git_lfs_is_recognised(checkout):
    mesh = checkout / "data/calvin_table_D/meshes/plank_link.obj"
    mesh.unlink()
    mesh.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(UserError, match="git lfs pull"):
        load_scene("D", checkout)


BOMB = "a0: &a0 [x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30)
)


@pytest.mark.parametrize(
    "text",
    [
        "objects: {}",
        "[1, 2]",
        "objects: [unclosed",
        "objects: !!python/object/apply:os.getcwd []",
        "global_scaling: ${nowhere.to.be.found}",
        BOMB,
        "a0: ${a1}\na1: ${a0}\n",
        "a0: [x, x]\na1: ['${a0}', '${a0}']\n",
        "a: &a [*a]",
    ],
)
def test_scene_file_of_another_kind_is_an_error_and_runs_nothing(text, checkout):
    path = checkout / "conf/scene/calvin_scene_D.yaml"
    path.chmod(0o644)
    path.write_text(text)
    with pytest.raises(UserError, match=r"calvin_scene_D\.yaml"):
        load_scene("D", checkout)


@pytest.mark.parametrize("number", [".inf", ".nan", "1" * 400, "[1]"])
def test_what_is_no_number_in_a_scene_file_is_told(number, checkout):
    path = checkout / "conf/scene/calvin_scene_D.yaml"
    path.chmod(0o644)
    path.write_text(path.read_text().replace("global_scaling: 0.8", f"global_scaling: {number}"))
    with pytest.raises(UserError, match=r"calvin_scene_D\.yaml: not a scene of CALVIN"):
        load_scene("D", checkout)


def test_interpolations_in_a_scene_file_are_resolved(checkout):
    path = checkout / "conf/scene/calvin_scene_D.yaml"
    path.chmod(0o644)
    text = path.read_text().replace("global_scaling: 0.8", "scale: 0.8\nglobal_scaling: ${scale}")
    path.write_text(text)
    assert load_scene("D", checkout).global_scaling == 0.8


def test_block_poses_are_drawn_on_the_surfaces(calvin_assets):
    scene = load_scene("B", calvin_assets)
    rng = np.random.default_rng(0)
    for _ in range(100):
        position = scene.sample_block_pose(rng)[:3]
        assert any(
            np.all(position >= low) and np.all(position <= high)
            for low, high in scene.surfaces.values()
        )


@pytest.mark.parametrize("scene", SCENES)
def test_the_parts_of_every_scene_have_the_ranges_of_calvin(scene, assets_of, make_env):
    layout = read_layout(make_env(scene, assets_of(scene)))
    found = (layout.slider_range, layout.drawer_range, layout.switch_range)
    slider = {"B": 0.304, "C": 0.24}.get(scene, SLIDER_RANGE)  # as the constant's docstring says
    np.testing.assert_allclose(found, (slider, DRAWER_RANGE, SWITCH_RANGE), atol=1e-9)
