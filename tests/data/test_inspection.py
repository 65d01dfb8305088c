"""The check finds what is wrong, and the page holds what it shows."""

import base64
import json
import re
import shutil
from typing import Any

import numpy as np
import pytest

from langsteer.data.checksums import BYTES
from langsteer.data.dataset_page import write_page
from langsteer.data.inspection import check_store
from langsteer.data.layout import INDEX_BYTES, read_layout
from langsteer.data.store import open_store
from langsteer.data.visualize_command import main
from langsteer.data.zarr_arrays import open_array
from langsteer.errors import UserError


@pytest.fixture
def copy(small_store, tmp_path):
    shutil.copytree(small_store.path, tmp_path / "a.zarr")
    return tmp_path / "a.zarr"


def test_sample_passes_the_check(sample_store, shared):
    assert check_store(sample_store, shared / "calvin_sample") == []


@pytest.mark.parametrize("episodes", ["language", "play", "labelled"])
def test_store_of_each_kind_passes_the_check(
    small_calvin, small_settings, converted, tmp_path, episodes
):
    settings = small_settings(episodes=episodes)
    store = converted(small_calvin, tmp_path / "a.zarr", settings)
    assert check_store(store, small_calvin) == []


@pytest.mark.parametrize(
    ("name", "index", "value", "what"),
    [
        ("point_cloud", (17, 3, 1), np.nan, "no numbers"),
        ("point_cloud", (17, 3, 2), 3.0, "outside of the box"),
        ("point_cloud", (17, 3, 5), 1.5, "colours outside"),
        ("depth", (17, 1, 1), 0.0, "not positive"),
        ("action", (17, 0), -1.01, "outside of"),
        ("state", (17, 14), np.inf, "no numbers"),
    ],
)
def test_each_wrong_value_is_found(copy, name, index, value, what):
    open_array(copy, name, write=True)[index].write(value).result()
    (problem,) = check_store(open_store(copy))
    assert name in problem
    assert "17" in problem
    assert what in problem


@pytest.mark.parametrize("name", ["action", "img"])
def test_bytes_that_belong_to_no_frame_are_found(copy, name):
    layout = read_layout(copy / "data" / name)
    shard = sorted((copy / "data" / name).glob("c.*"))[-1]
    whole, index = shard.read_bytes(), layout.chunks_per_shard * INDEX_BYTES + BYTES
    shard.write_bytes(whole[:-index] + b"abc" + whole[-index:])
    assert check_store(open_store(copy)) == [f"{shard}: 3 bytes that belong to no frame"]


@pytest.mark.parametrize(
    ("name", "row"), [("action", 25), ("state", 89), ("img", 40), ("depth", 0), ("point_cloud", 20)]
)
def test_each_difference_to_the_source_is_found(copy, small_calvin, name, row):
    values = open_array(copy, name, write=True)
    changed = values[row].read().result().copy()
    flat = changed.reshape(-1)
    flat[0] = flat[1]
    values[row].write(changed).result()
    (problem,) = check_store(open_store(copy), small_calvin)
    assert name in problem
    assert str(row) in problem


def test_source_without_an_image_any_more_is_told(small_store, small_calvin, tmp_path):
    source = shutil.copytree(small_calvin, tmp_path / "calvin")
    frame = source / "training" / "episode_0000010.npz"
    with np.load(frame) as content:
        kept = {name: content[name] for name in content.files if name != "depth_static"}
    np.savez_compressed(frame, **kept)
    (problem,) = check_store(small_store, source)
    assert "no array 'depth_static'" in problem


def test_window_that_the_source_lacks_is_found(copy, small_calvin):
    meta = copy / "meta" / "zarr.json"
    meta.write_text(meta.read_text().replace("open it", "close it"))
    (problem,) = check_store(open_store(copy), small_calvin)
    assert "no such window" in problem


def test_bytes_that_cannot_be_decoded_are_told(copy):
    shard = copy / "data" / "img" / "c.2.0.0.0"
    content = bytearray(shard.read_bytes())
    content[100:200] = bytes(100)
    shard.write_bytes(content)
    with pytest.raises(UserError, match="cannot be decoded"):
        check_store(open_store(copy))


def test_check_command_says_good_or_exits_with_the_problems(copy, small_calvin, capsys):
    main([str(copy), "--check", "--source", str(small_calvin)])
    assert "good (90 frames, 5 episodes" in capsys.readouterr().out
    open_array(copy, "action", write=True)[3].write(2.0).result()
    with pytest.raises(SystemExit) as caught:
        main([str(copy), "--check"])
    assert caught.value.code == 2
    assert "action: 1 frames from 3 on" in capsys.readouterr().err


def _data(page: str) -> dict[str, Any]:
    written = re.search(r'type="application/json">(.*?)</script>', page, re.DOTALL)
    assert written is not None
    return json.loads(written[1])


def test_page_needs_no_network_and_holds_the_episode(small_store, tmp_path):
    write_page(small_store, [1, 4], tmp_path / "page.html", frames_per_episode=7)
    page = (tmp_path / "page.html").read_text()
    assert not re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="?(?:https?:)?//', page)
    first, last = _data(page)["episodes"]
    assert first["instruction"] == "push the drawer"
    assert last["split"] == "validation"
    assert first["rows"][0] == 20
    assert first["rows"][-1] == 39
    assert first["numbers"][-1] == 44
    assert len(first["clouds"]) == len(first["images"]) == len(first["depths"]) == 7
    row = small_store.array("point_cloud")[20].read().result()
    xyz = np.frombuffer(base64.b64decode(first["clouds"][0]["xyz"]), "<i2").reshape(3, -1).T
    np.testing.assert_allclose(xyz / 1e4, row[:, :3], atol=0.6e-4)
    data = _data(page)
    command = [curves["title"] for curves in data["curves"]].index("gripper command")
    stored = small_store.read("action")[20, 6]
    np.testing.assert_allclose(first["curves"][command][0][0], stored, atol=1e-4)
    assert data["overview"]["tasks"][0] == ["open_drawer", 3]
    assert "width=device-width" in page


def test_page_draws_angles_without_jumps_and_the_hand_where_its_camera_is(small_store, tmp_path):
    write_page(small_store, [0], tmp_path / "page.html")
    data = _data((tmp_path / "page.html").read_text())
    (episode,) = data["episodes"]
    angles = [one["title"] for one in data["curves"]].index("tcp angles (rad, unwrapped)")
    assert np.abs(np.diff(episode["curves"][angles])).max() < np.pi
    eyes = np.array(episode["gripper_camera"])[:, 0]
    assert np.linalg.norm(eyes - np.array(episode["path"]), axis=1).max() < 0.2


def test_page_of_black_colours_is_coloured_by_height(copy, tmp_path):
    for name, columns in (("img", slice(None)), ("point_cloud", slice(3, None))):
        array = open_array(copy, name, write=True)
        array[..., columns].write(np.zeros_like(array[..., columns].read().result())).result()
    write_page(open_store(copy), [0], tmp_path / "page.html", frames_per_episode=2)
    episode = _data((tmp_path / "page.html").read_text())["episodes"][0]
    assert not episode["coloured"]
    assert episode["images"] is None


@pytest.mark.parametrize("evil", ["</script><script>alert(1)</script>", "<!--<script>"])
def test_instruction_cannot_break_out_of_the_page(copy, tmp_path, evil):
    meta = copy / "meta" / "zarr.json"
    meta.write_text(meta.read_text().replace("pull the drawer", evil))
    write_page(open_store(copy), [0], tmp_path / "page.html", frames_per_episode=2)
    page = (tmp_path / "page.html").read_text()
    assert evil not in page
    assert _data(page)["episodes"][0]["instruction"] == evil


def test_page_of_a_store_without_images(copy, tmp_path):
    for name in ("img", "depth"):
        shutil.rmtree(copy / "data" / name)
    write_page(open_store(copy), [0], tmp_path / "page.html", frames_per_episode=2)
    assert _data((tmp_path / "page.html").read_text())["episodes"][0]["images"] is None


@pytest.mark.parametrize("episodes", [[], [5], [-1]])
def test_episode_that_is_not_there(small_store, tmp_path, episodes):
    with pytest.raises(UserError, match="from 0 to 4"):
        write_page(small_store, episodes, tmp_path / "page.html")


def test_a_page_without_frames_is_an_error(small_store, tmp_path):
    with pytest.raises(UserError, match="at least 1 is needed"):
        write_page(small_store, [0], tmp_path / "page.html", frames_per_episode=0)
