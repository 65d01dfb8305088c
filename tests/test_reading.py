"""Only regular files are read, and what is read stays small."""

import json
import os
import signal
import tracemalloc
from pathlib import Path

import pytest

from langsteer.data.publish import read_run
from langsteer.data.shard_writer import bad_episodes
from langsteer.envs.meshes import read_mesh
from langsteer.envs.scene_config import load_scene
from langsteer.errors import UserError
from langsteer.policies.dp3.reference import read_reference_checkpoint
from langsteer.policies.exported import FORMAT, VERSION, read_export
from langsteer.policies.loading import read_checkpoint
from langsteer.reading import IrregularFileError, open_regular, read_bytes, read_text, read_yaml
from langsteer.steering.demonstrations import open_library
from langsteer.training.loggers import read_metrics


def test_a_pipe_a_device_a_loop_and_a_folder_are_told_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("pipe", "zero"):
        with pytest.raises(IrregularFileError, match=f"{name}: a pipe or a device") as found:
            read_text(tmp_path / name)
        assert isinstance(found.value, UserError)
    (tmp_path / "loop").symlink_to("loop")
    for name, problem in (("loop", "symbolic links"), ("", "a folder"), ("gone", "No such file")):
        with pytest.raises(OSError, match=problem):
            read_text(tmp_path / name)


def test_a_file_too_large_is_not_read_into_memory(tmp_path):
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(IrregularFileError, match="1099511627776 bytes, expected 1000 at most"):
        read_bytes(tmp_path / "sparse", 1000)


def test_no_descriptor_is_left_open(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        with pytest.raises(OSError):
            open_regular(tmp_path / "pipe")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def open_weights(path):
    described = {"format": FORMAT, "version": VERSION, "policy": {}, "pipeline": None, "origin": {}}
    path.with_name("policy.json").write_text(json.dumps(described))
    read_export(path.parent)


def open_lerobot(path):
    pytest.importorskip("pyarrow")
    from langsteer.data.lerobot_import import import_dataset

    import_dataset(path.parents[1], path.parents[2] / "made")


def open_scene(path):
    root = path.parents[2]
    (root / "data").mkdir()  # a checkout has meshes, too
    load_scene("D", root)


READERS = {
    "exported/policy.json": lambda path: read_export(path.parent),
    "exported/policy.safetensors": open_weights,
    "latest.ckpt": read_checkpoint,
    "reference.ckpt": read_reference_checkpoint,
    "demonstrations.npz": open_library,
    "metrics.jsonl": read_metrics,
    "a.zarr.partial/run.json": lambda path: read_run(path.parent),
    "a.zarr.partial/done/000000.json": lambda path: bad_episodes(path.parents[1], 3),
    "lerobot/meta/info.json": open_lerobot,
    "mesh.obj": read_mesh,
    "calvin/conf/scene/calvin_scene_D.yaml": open_scene,
}


def put(kind, path):
    """Something that is no file to read, at ``path``."""
    path.parent.mkdir(parents=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "giant":
        with path.open("wb") as file:
            file.truncate(1 << 40)
    else:
        path.symlink_to({"loop": path.name, "device": "/dev/zero"}[kind])


@pytest.mark.parametrize("kind", ["pipe", "loop", "giant", "device"])
@pytest.mark.parametrize("name", READERS)
def test_every_reader_tells_what_is_no_file_to_read(name, kind, tmp_path):
    path = tmp_path / "given" / name
    put(kind, path)
    signal.alarm(20)  # a pipe would be waited for
    try:
        with pytest.raises(UserError) as found:
            READERS[name](path)
    finally:
        signal.alarm(0)
    folder = path.parents[1] if "/" in name else path
    assert str(folder) in str(found.value)
    assert len(str(found.value)) < 1000


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a/done/000000.json", '{"bad": []}'),
        ("a/done/000000.json", '{"bad": {"-1": "x"}}'),
        ("a/done/000000.json", '{"bad": {"3": "x"}}'),
        ("a/done/000000.json", '{"bad": {"' + "1" * 5000 + '": "x"}}'),
        ("a/done/000000.json", "[" * 100_000),
        ("metrics.jsonl", b"\xff"),
    ],
)
def test_damaged_notes_of_a_run_are_told(name, content, tmp_path):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    metrics = name == "metrics.jsonl"
    reader = read_metrics if metrics else lambda path: bad_episodes(path.parents[1], 3)
    with pytest.raises(UserError, match=str(path)):
        reader(path)


BOMB = "a0: &a0 [x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30)
)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (BOMB, "aliases counted"),
        ("a: &a [*a]", "an alias inside"),
        ("a: &a {x: 1}\nb: {<<: *a}\n", "merge"),
        ("[" * 5000, "nested deeper"),
        ("a: {", "no YAML"),
        ("a: !!python/object:os.system x", "no YAML"),
    ],
)
def test_yaml_that_would_grow_or_run_is_a_value_error(tmp_path, text, problem):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ValueError, match=problem):
        read_yaml(tmp_path / "a.yaml")


def test_yaml_in_another_encoding_is_a_value_error(tmp_path):
    (tmp_path / "a.yaml").write_bytes("a: ouvre le tiroir fermé".encode("latin-1"))
    with pytest.raises(ValueError, match="utf-8"):
        read_yaml(tmp_path / "a.yaml")


def test_yaml_is_read_as_before_and_dates_are_words(tmp_path):
    (tmp_path / "a.yaml").write_text("a: &x [1, 2.5, yes]\nb: *x\nday: 2022-02-02\n")
    values = [1, 2.5, True]
    assert read_yaml(tmp_path / "a.yaml") == {"a": values, "b": values, "day": "2022-02-02"}


def test_a_small_file_takes_little_memory_whatever_is_allowed(tmp_path):
    path = tmp_path / "small.json"
    path.write_text("{}")
    tracemalloc.start()
    try:
        assert read_text(path) == "{}"
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000
