"""Only regular files are read, and what is read stays small."""

import os
import tracemalloc
from pathlib import Path

import pytest

from langsteer.errors import UserError
from langsteer.reading import IrregularFileError, open_regular, read_bytes, read_text, read_yaml


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


BOMB = "a0: &a0 [x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30)
)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (BOMB, "aliases counted"),
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
