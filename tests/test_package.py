"""What importing the package may and may not do, and what its commands do where packages lack."""

import platform
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from langsteer.envs import requirements

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ROOT / "scripts"
SIMULATOR = ("pybullet", "gymnasium", "imageio_ffmpeg")


def help_without(packages, script):
    """Run ``script --help`` in a Python that finds none of the packages."""
    code = (
        "import runpy, sys;"
        f"sys.modules |= dict.fromkeys({packages!r});"
        f"sys.argv = [{script!r}, '--help'];"
        f"runpy.run_path({str(SCRIPTS / script)!r}, run_name='__main__')"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


PLATFORMS = [("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"), ("darwin", "x86_64")]


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.14"])
@pytest.mark.parametrize(("system", "machine"), PLATFORMS)
def test_the_extra_has_one_pybullet_where_the_message_says_so(
    system, machine, version, monkeypatch
):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    here = {"python_version": version, "sys_platform": system, "platform_machine": machine}
    extra = [Requirement(line) for line in project["optional-dependencies"]["sim"]]
    chosen = [
        found.name
        for found in extra
        if found.name in requirements.DISTRIBUTIONS and found.marker.evaluate(here)
    ]
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(sys, "version_info", tuple(map(int, version.split("."))))
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert len(chosen) == requirements._has_wheel()


def test_importing_langsteer_imports_neither_torch_nor_a_simulator():
    code = (
        "import sys, langsteer, langsteer.calvin, langsteer.data;"
        "heavy = {'torch', 'pybullet', 'gymnasium', 'numba'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "script", ["convert_calvin_to_zarr.py", "visualize_dataset.py", "train_dp3.py"]
)
def test_data_and_training_need_no_simulator(script):
    done = help_without(SIMULATOR, script)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "script",
    [
        "collect_demos.py", "evaluate_calvin.py", "evaluate_steering.py", "quickstart.py",
        "replay_dataset.py", "run_experiment.py",
    ],
)  # fmt: skip
@pytest.mark.parametrize("packages", [("pybullet",), SIMULATOR])
def test_a_missing_simulator_is_named_and_how_to_install_it(script, packages):
    done = help_without(packages, script)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: the simulator needs {', '.join(packages)}")
    assert "pip install 'langsteer[sim]'" in done.stderr
