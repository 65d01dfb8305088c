"""scripts/setup_calvin.sh against a remote on this disk."""

import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "setup_calvin.sh"


def git(folder, *arguments):
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def remote(tmp_path):
    """A repository laid out like calvin_env: its address, its first commit; its head is later."""
    root = tmp_path / "remote"
    for file in ("data/franka_panda/a", "data/blocks/b", "conf/scene/calvin_scene_D.yaml"):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text("first\n")
    git(tmp_path, "init", "--quiet", str(root))
    git(root, "add", "-A")
    git(root, "commit", "--quiet", "-m", "first")
    commit = git(root, "rev-parse", "HEAD")
    (root / "conf/scene/calvin_scene_D.yaml").write_text("later\n")
    git(root, "commit", "--quiet", "-am", "later")
    return f"file://{root}", commit


def setup(*arguments):
    command = ["bash", str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_fetches_the_commit_asked_for_and_says_how_to_use_it(remote, tmp_path):
    url, commit = remote
    folder = tmp_path / "with space" / "calvin_env"
    done = setup("--url", url, "--commit", commit, folder)
    assert done.returncode == 0, done.stderr
    assert (folder / "conf/scene/calvin_scene_D.yaml").read_text() == "first\n"
    export = next(line for line in done.stdout.splitlines() if "export" in line)
    shown = subprocess.run(
        ["bash", "-c", f'{export}; printf %s "$CALVIN_ENV_ROOT"'], capture_output=True, text=True
    )
    assert shown.stdout == str(folder)


def test_second_run_changes_nothing(remote, tmp_path):
    url, commit = remote
    folder = tmp_path / "calvin_env"
    setup("--url", url, "--commit", commit, folder)
    (folder / "mine").write_text("kept")
    again = setup("--url", "file:///nowhere", "--commit", commit, folder)
    assert again.returncode == 0
    assert "there already" in again.stdout
    assert (folder / "mine").read_text() == "kept"


def test_failed_download_leaves_nothing(remote, tmp_path):
    url, _ = remote
    folder = tmp_path / "calvin_env"
    for arguments in (("--url", "file:///nowhere"), ("--url", url, "--commit", "0" * 40)):
        failed = setup(*arguments, folder)
        assert failed.returncode == 2
        assert "could not fetch" in failed.stderr
        assert not folder.exists()
        assert not folder.with_name("calvin_env.partial").exists()


def test_repository_without_assets_is_refused(remote, tmp_path):
    url, _ = remote
    root = Path(url.removeprefix("file://"))
    git(root, "rm", "-rq", "data")
    git(root, "commit", "--quiet", "-m", "no data")
    done = setup("--url", url, "--commit", git(root, "rev-parse", "HEAD"), tmp_path / "x")
    assert done.returncode == 2
    assert "no data/" in done.stderr
    assert not (tmp_path / "x").exists()


def test_folder_with_other_things_is_left_alone(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "thesis.tex").write_text("precious")
    done = setup(folder)
    assert done.returncode == 2
    assert "not calvin_env" in done.stderr
    assert (folder / "thesis.tex").read_text() == "precious"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [(["--depth"], "unknown option"), (["--url"], "needs a value"), (["a", "b"], "one folder")],
)
def test_wrong_arguments_are_refused(arguments, complaint):
    done = setup(*arguments)
    assert done.returncode == 2
    assert complaint in done.stderr


def test_help_is_the_scripts_own_header():
    done = setup("--help")
    assert done.returncode == 0
    assert done.stdout.startswith("Fetch CALVIN's simulator assets")
    assert "set -euo" not in done.stdout
