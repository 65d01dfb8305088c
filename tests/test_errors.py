"""A command's end: what a user can mend is one line, a fault of ours keeps its traceback."""

import errno
from pathlib import Path

import pytest

from langsteer.errors import UserError, exits_cleanly


def ends_with(action, capsys):
    with pytest.raises(SystemExit) as end:
        exits_cleanly(action)()
    return end.value.code, capsys.readouterr().err


def test_bad_input_is_one_line_and_status_2(capsys):
    def command():
        raise UserError("data/x.zarr: no such store")

    assert ends_with(command, capsys) == (2, "error: data/x.zarr: no such store\n")


def test_a_message_of_many_pages_keeps_its_file_and_its_remedy():
    message = str(UserError(f"data/x.zarr: {'a' * 100_000} is no number; convert it again"))
    assert len(message) < 5000
    assert message.startswith("data/x.zarr: a")
    assert message.endswith("is no number; convert it again")


def test_full_disk_is_no_traceback(capsys):
    def command():
        with Path("/dev/full").open("w", buffering=1) as file:
            file.write("metrics\n")

    status, said = ends_with(command, capsys)
    assert status == 2
    assert said.startswith("error: No space left on device; make room")


def test_folder_that_cannot_be_made_is_named(tmp_path, capsys):
    (tmp_path / "taken").write_text("a file")
    status, said = ends_with(lambda: (tmp_path / "taken" / "run").mkdir(), capsys)
    assert status == 2
    assert f"{tmp_path}/taken/run: Not a directory" in said


def test_other_errors_of_the_system_keep_their_traceback():
    def command():
        raise OSError(errno.EBADF, "Bad file descriptor")

    with pytest.raises(OSError, match="Bad file"):
        exits_cleanly(command)()
