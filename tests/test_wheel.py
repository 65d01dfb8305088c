"""The distributions hold what the package needs outside of the checkout."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("hatchling")

ROOT = Path(__file__).resolve().parents[1]
# Run in an empty folder; the wheel's files come before the checkout's on the path.
USE = """
import sys
sys.path.insert(0, sys.argv[1])
from importlib.metadata import PathDistribution
from pathlib import Path
import langsteer
from langsteer.configuration import compose
from langsteer.envs.builtin import builtin_scene
from langsteer.policies.loading import SHIPPED, SHIPPED_BASE, load_policy

unpacked = Path(sys.argv[1])
assert Path(langsteer.__file__).is_relative_to(unpacked)
(metadata,) = unpacked.glob("*.dist-info")
commands = PathDistribution(metadata).entry_points.select(group="console_scripts")
assert len(commands) > 10 and all(callable(command.load()) for command in commands)
for name in ("train", "experiment", "evaluate", "evaluate_steering", "serve"):
    compose(name, [])
assert builtin_scene().table_urdf.is_relative_to(unpacked)
for name in (SHIPPED, SHIPPED_BASE):
    load_policy(name)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built by the project's own backend, which needs no network."""
    folder = tmp_path_factory.mktemp("built")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def source(wheel):
    """Names of the files in the source distribution beside the wheel."""
    (path,) = wheel.parent.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        return {name.partition("/")[2] for name in archive.getnames()}


def files(folder, prefix):
    """Names of a folder's files as ``prefix/...``, without what Python caches."""
    return {
        f"{prefix}/{path.relative_to(folder).as_posix()}"
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_both_distributions_hold_the_package_its_policies_and_its_configurations(wheel, source):
    package = files(ROOT / "langsteer", "langsteer")
    for policy in ("shipped", "shipped_base"):
        assert f"langsteer/policies/{policy}/policy.safetensors" in package
    in_wheel = set(zipfile.ZipFile(wheel).namelist())
    assert package | files(ROOT / "conf", "langsteer/conf") <= in_wheel
    assert package | files(ROOT / "conf", "conf") <= source


def test_commands_configurations_assets_and_policies_work_without_the_checkout(wheel, tmp_path):
    unpacked, empty = tmp_path / "unpacked", tmp_path / "empty"
    zipfile.ZipFile(wheel).extractall(unpacked)
    empty.mkdir()
    subprocess.run([sys.executable, "-c", USE, str(unpacked)], cwd=empty, check=True)
