"""What importing the package may and may not do, and what its commands do where packages lack."""

import platform
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import langsteer
from langsteer.envs import requirements

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ROOT / "scripts"
SIMULATOR = ("pybullet", "gymnasium", "imageio_ffmpeg")


def run_without(packages, script, *arguments):
    """Run a script in a Python that finds none of the packages."""
    code = (
        "import runpy, sys;"
        f"sys.modules |= dict.fromkeys({packages!r});"
        f"sys.argv = {[script, *arguments]!r};"
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
        if found.name in requirements.DISTRIBUTIONS and found.marker and found.marker.evaluate(here)
    ]
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(sys, "version_info", tuple(map(int, version.split("."))))
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert len(chosen) == requirements._has_wheel()


def test_what_the_package_offers_is_listed():
    assert {"load_agent", "load_policy"} <= set(dir(langsteer))


def test_importing_langsteer_imports_neither_torch_nor_a_simulator():
    code = (
        "import sys, langsteer, langsteer.calvin, langsteer.data;"
        "heavy = {'torch', 'pybullet', 'gymnasium', 'numba'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("module", ["data.convert_command", "train_command"])
def test_data_and_training_need_no_simulator(module):
    code = f"import sys; sys.modules |= dict.fromkeys({SIMULATOR!r}); import langsteer.{module}"
    subprocess.run([sys.executable, "-c", code], check=True)


COMMANDS = sorted(path.name for path in SCRIPTS.glob("*.py") if path.name != "install.py")


@pytest.mark.parametrize("script", COMMANDS)
def test_help_names_the_command_as_called_and_needs_no_heavy_package(script):
    done = run_without((*SIMULATOR, "torch", "numba"), script, "--help")
    assert done.returncode == 0, done.stderr
    assert f"python {SCRIPTS / script}" in done.stdout


@pytest.mark.parametrize("script", ["train_dp3.py", "collect_demos.py"])
def test_a_reader_that_leaves_early_ends_a_command_without_a_word(script):
    command = [sys.executable, str(SCRIPTS / script), "--help"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as started:
        assert started.stdout is not None and started.stderr is not None
        started.stdout.close()
        assert started.stderr.read() == b""


@pytest.mark.parametrize(
    "script",
    [
        "collect_demos.py", "evaluate_calvin.py", "evaluate_steering.py", "quickstart.py",
        "replay_dataset.py", "run_experiment.py",
    ],
)  # fmt: skip
@pytest.mark.parametrize("packages", [("pybullet",), SIMULATOR])
def test_a_missing_simulator_is_named_and_how_to_install_it(script, packages):
    done = run_without(packages, script)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: the simulator needs {', '.join(packages)}")
    assert "pip install 'langsteer[sim]'" in done.stderr


def test_make_takes_the_newest_python_that_works(tmp_path):
    for name, body in (("python3.13", "exit 1"), ("python3.12", f'exec "{sys.executable}" "$@"')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    command = ["make", "--eval=found: ; @echo $(PYTHON)", "found"]
    path = f"{tmp_path}:/usr/bin:/bin"
    done = subprocess.run(command, cwd=ROOT, env={"PATH": path}, capture_output=True, text=True)
    assert done.stdout.strip() == "python3.12", done.stderr
