"""Whatever a file or a command line holds: a result or one line, soon, and nothing in silence.

Each case runs in a process of its own with 2 GB and 20 s. It may give what the undamaged input
gives or, where the input has no checksum, anything; or an error that is the user's. It may not die
by a signal, hang, ask for more memory or raise anything else. `docs/security.md` says what of this
is promised. LANGSTEER_FUZZ_CASES sets the cases of each test, 6400 in all by default.
"""

import contextlib
import json
import math
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from langsteer.calvin.dataset import BadFrameError, open_dataset, read_annotations, read_frame
from langsteer.calvin.dataset import read_config as read_cameras
from langsteer.configuration import compose
from langsteer.data.conversion_settings import ConversionSettings
from langsteer.data.inspection import check_store
from langsteer.data.plan import make_plan
from langsteer.data.pointcloud import ObservationPipeline
from langsteer.data.store import open_store
from langsteer.errors import UserError
from langsteer.policies.dp3 import DP3, DP3Config, Normalizer
from langsteer.policies.loading import load_policy
from langsteer.resumable import Pieces
from langsteer.training.config import RunConfig
from langsteer.training.replay_buffer import ReplayBuffer
from tests.damage import HOSTILE, changed, leaves, mutation, tree_change

pytestmark = [pytest.mark.slow, pytest.mark.timeout(4 * 3600)]
MOST_BYTES, MOST_SECONDS = 2 << 30, 20
CASES = int(os.environ.get("LANGSTEER_FUZZ_CASES", 800))
many = settings(
    max_examples=CASES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
LOUD = (UserError, BadFrameError)


def contained(case: Callable[[], object]) -> object:
    """What a case returns in a process of its own, or None after an error of the user's."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        answer: tuple[str, object] = ("", "")
        try:
            size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (size + MOST_BYTES, size + MOST_BYTES))
            torch.set_num_threads(1)
            answer = ("ok", case())
        except LOUD as error:
            str(error).encode("utf-8", "backslashreplace")
            answer = ("told", len(str(error)))
        except BaseException:
            answer = ("raised", traceback.format_exc())
        with os.fdopen(writing, "wb") as file:
            pickle.dump(answer, file)
        os._exit(0)
    os.close(writing)
    begun = time.monotonic()
    while (ended := os.waitpid(pid, os.WNOHANG))[0] == 0:
        passed = time.monotonic() - begun
        if passed > MOST_SECONDS and passed - _waited_for_a_core(pid) > MOST_SECONDS:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise AssertionError(f"no answer within {MOST_SECONDS} s")
        time.sleep(0.002)
    with os.fdopen(reading, "rb") as file:
        content = file.read()
    assert not os.WIFSIGNALED(ended[1]), f"it died by signal {os.WTERMSIG(ended[1])}"
    kind, value = pickle.loads(content)
    assert kind in ("ok", "told"), value
    assert kind == "ok" or value < 5000, "a message of more than a page"
    return value if kind == "ok" else None


def _waited_for_a_core(pid: int) -> float:
    """Seconds in which a process could have run and others did: the machine may be busy."""
    waited = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):  # it has just ended
            waited += int((thread / "schedstat").read_text().split()[1])
    return waited / 1e9


@pytest.fixture(scope="module")
def calvin(tmp_path_factory, make_calvin):
    windows = [(10, 22, "open_drawer", "pull it"), (24, 36, "close_drawer", "öffne nicht")]
    root = tmp_path_factory.mktemp("fuzz") / "calvin"
    return make_calvin(root, {"training": ([(10, 40)], windows)})


@pytest.fixture(scope="module")
def store(calvin, tmp_path_factory):
    # Converted by another program: threads of the storage library do not survive a fork.
    path = tmp_path_factory.mktemp("fuzz") / "a.zarr"
    script = Path(__file__).resolve().parents[1] / "scripts" / "convert_calvin_to_zarr.py"
    small = ["--num_points", "16", "--crop", "32", "--frames_per_file", "8", "--num_workers", "1"]
    command = [sys.executable, script, "--root_dir", calvin, "--save_path", path, *small]
    subprocess.run(list(map(str, command)), check=True)
    return path


def put(file: Path, content: bytes) -> Path:
    """Replace a file's content."""
    file.unlink(missing_ok=True)
    file.write_bytes(content)
    return file


def as_bytes(arrays: dict[str, np.ndarray]) -> list[tuple[str, str, tuple[int, ...], bytes]]:
    return [(name, array.dtype.str, array.shape, array.tobytes()) for name, array in arrays.items()]


FRAME_NAMES = ("rgb_static", "depth_static", "depth_gripper", "robot_obs", "rel_actions")


@many
@given(mutation())
def test_a_frame(calvin, tmp_path, change):
    (split,) = open_dataset(calvin)
    good = split.frame_path(12)
    file = put(tmp_path / good.name, change(good.read_bytes()))
    found = contained(lambda: as_bytes(read_frame(file, FRAME_NAMES, split.config)))
    assert found in (None, as_bytes(read_frame(good, FRAME_NAMES, split.config)))


@many
@given(mutation())
def test_annotations(calvin, tmp_path, change):
    root = shutil.copytree(calvin, tmp_path / "calvin", dirs_exist_ok=True)
    file = root / "training" / "lang_annotations" / "auto_lang_ann.npy"
    put(file, change((calvin / file.relative_to(root)).read_bytes()))
    (split,) = open_dataset(root)

    def case() -> None:
        read_annotations(split)
        make_plan(root, ConversionSettings(n_points=16, static_crop=32))

    contained(case)


@many
@given(tree_change, st.none() | mutation())
def test_the_cameras_of_a_dataset(calvin, tmp_path, tree, change):
    good = (calvin / "training" / ".hydra" / "merged_config.yaml").read_text()
    try:
        text = yaml.safe_dump(changed(yaml.safe_load(good), *tree), allow_unicode=True)
    except (yaml.YAMLError, ValueError):  # numbers too long to be written
        text = good
    content = text.encode("utf-8", "surrogatepass")
    folder = tmp_path / "training"
    (folder / ".hydra").mkdir(parents=True, exist_ok=True)
    put(folder / ".hydra" / "merged_config.yaml", content if change is None else change(content))

    def case() -> None:
        config = read_cameras(folder)
        pipeline = ObservationPipeline(
            n_points=16, static_crop=32, static=config.static, gripper=config.gripper
        )
        assert np.isfinite(pipeline.static.world_from_optical()).all()
        assert math.isfinite(pipeline.gripper.focal)

    contained(case)


def content_of(path: Path) -> object:
    """All that training reads of a store."""
    store = open_store(path)
    buffer = ReplayBuffer(store, use_colour=True)
    rows = np.arange(store.n_frames)
    arrays = {"a": buffer.actions, "s": buffer.states, "p": buffer.points(rows)}
    return as_bytes({**arrays, "e": store.episode_ends})


@many
@given(
    st.sampled_from(["point_cloud", "action", "state", "img", "depth"]),
    st.floats(0, 1, exclude_max=True),
    mutation(),
)
def test_shards(store, tmp_path, name, place, change):
    path = (
        shutil.copytree(store, tmp_path / "a.zarr", dirs_exist_ok=True, copy_function=os.link)
        if not (tmp_path / "a.zarr").exists()
        else tmp_path / "a.zarr"
    )
    shards = sorted((path / "data" / name).glob("c.*"))
    shard = shards[int(place * len(shards))]
    good = shard.read_bytes()
    put(shard, change(good))
    try:
        trained = contained(lambda: content_of(path))
        checked = contained(lambda: check_store(open_store(path)))
    finally:
        put(shard, good)
    assert trained in (None, contained(lambda: content_of(store)))
    if change(good) != good:
        assert checked != [], "the check found nothing"


@many
@given(
    st.sampled_from(["", "meta", "data", "meta/episode_ends", "data/state", "data/point_cloud"]),
    tree_change,
    st.none() | mutation(),
)
def test_metadata_of_a_store(store, tmp_path, name, tree, change):
    path = tmp_path / "a.zarr"
    if not path.exists():
        shutil.copytree(store, path)
    file = path / name / "zarr.json"
    good = file.read_bytes()
    content = json.dumps(changed(json.loads(good), *tree)).encode()
    put(file, content if change is None else change(good))
    try:
        contained(lambda: content_of(path))
    finally:
        put(file, good)


@pytest.fixture(scope="module")
def checkpoint():
    config = DP3Config(down_dims=(16, 32), n_groups=4, point_widths=(8, 16))
    policy = DP3(config, ObservationPipeline(n_points=20).to_dict())
    random = np.random.default_rng(0)
    states, actions = random.normal(size=(50, 15)), random.uniform(-1, 1, (50, 7))
    policy.set_normalizer(Normalizer.fit(config, states, actions))
    return {
        "format": "langsteer-checkpoint",
        "version": 1,
        "config": {"policy": config.to_dict(), "training": {}},
        "pipeline": policy.pipeline,
        "model": policy.state_dict(),
        "ema": None,
    }


def damaged_tensor(tensor: torch.Tensor, how: int) -> torch.Tensor:
    ways = [
        lambda: tensor.double(),
        lambda: torch.full_like(tensor, torch.nan),
        lambda: tensor.reshape(-1)[:-1],
        lambda: torch.zeros(1).expand(10**12),
        lambda: tensor.to_sparse(),
        lambda: torch.zeros(()),
    ]
    return ways[how % len(ways)]()


@many
@given(tree_change, st.none() | mutation(), st.none() | st.integers(0, 5))
def test_a_checkpoint(checkpoint, tmp_path, tree, change, tensor):
    payload = dict(checkpoint)
    if tensor is not None:
        names = list(payload["model"])
        name = names[int(tree[0] * len(names))]
        payload["model"] = payload["model"] | {name: damaged_tensor(payload["model"][name], tensor)}
    elif change is None:
        payload = changed(payload, *tree)
    torch.save(payload, tmp_path / "good.ckpt")
    content = (tmp_path / "good.ckpt").read_bytes()
    file = put(tmp_path / "a.ckpt", content if change is None else change(content))

    def case() -> None:
        policy = load_policy(file)
        assert all(bool(value.isfinite().all()) for value in policy.state_dict().values())
        assert tensor is None, "a damaged tensor was loaded"

    contained(case)


EPISODE = {
    "episode": 0, "task": "open_drawer", "instruction": "open the drawer", "success": False,
    "steps": 8, "tasks_seen": ["close_drawer"], "predictions": 1, "prediction_ms": 2.5,
    "environment": {"scene": "builtin", "renderer": "depth"},
}  # fmt: skip


@many
@given(tree_change, st.none() | mutation())
def test_results_of_an_earlier_run(tmp_path, tree, change):
    pytest.importorskip("pybullet")
    from langsteer.evaluation.experiment import TaskEnvSettings, _contradiction, _Episode

    env = TaskEnvSettings(task=("open_drawer",), instruction="open the drawer")
    text = json.dumps(changed(EPISODE, *tree)).encode()
    put(tmp_path / "0000.json", text if change is None else change(json.dumps(EPISODE).encode()))
    pieces = Pieces(
        tmp_path, "episode", "episodes", kind=_Episode,
        contradiction=partial(_contradiction, env),
    )  # fmt: skip

    def case() -> None:
        result = pieces.read(0)
        assert result is not None
        assert result["task"] == "open_drawer"
        assert result["episode"] == 0
        assert result["environment"]["renderer"]

    contained(case)


KEYS = leaves(compose("train"))


@many
@given(st.floats(0, 1, exclude_max=True), HOSTILE, st.booleans())
def test_a_command_line(place, value, quoted):
    key = ".".join(map(str, KEYS[int(place * len(KEYS))]))
    try:
        text = json.dumps(value) if quoted else str(value)
    except ValueError:  # numbers too long to be written
        text = "9" * 5000
    contained(lambda: RunConfig.from_dict(compose("train", [f"{key}={text}"])) and None)
