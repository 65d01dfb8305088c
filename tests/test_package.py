"""What importing the package may and may not do, and what its commands do where packages lack."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
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
def test_a_missing_simulator_is_named_with_a_python_that_has_it(script, packages):
    done = help_without(packages, script)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: the simulator needs {', '.join(packages)}")
    assert "pip install 'langsteer[sim]'" in done.stderr
    if sys.version_info >= (3, 12):
        assert "use Python 3.10 or 3.11" in done.stderr
