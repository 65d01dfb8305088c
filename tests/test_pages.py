"""What the README and the pages of docs/ tell a user to type works, in the order it stands.

Each page's blocks run as they are in one folder: the README's in an empty one, the others' where
the README's have left their results. Commands get small sizes after their own arguments, so that
the last one counts. Installing, queueing, downloading and testing are left out.
"""

import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pybullet")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ROOT = Path(__file__).resolve().parents[1]
CHECKPOINTS = "outputs/checkpoints"
TRAIN = [
    "training.num_epochs=1",
    "training.batch_size=4",
    "training.gradient_accumulation_steps=1",
    "training.num_workers=0",
    "training.val_action_samples=4",
    "training.device=cpu",
    "training.wandb.enabled=false",
    "policy.down_dims=[16,32]",
    "policy.point_widths=[8,16,32]",
    "policy.encoder_output_dim=8",
    "policy.diffusion_step_embed_dim=16",
]
PLAY = ["num_workers=1", "max_steps=9", "device=cpu"]
SIZES = {
    "train_dp3.py": TRAIN,
    "convert_calvin_to_zarr.py": ["--num_points", "64", "--num_workers", "1"],
    "visualize_dataset.py": ["--max_frames", "2"],
    "collect_demos.py": [
        *("--episodes_per_task", "1", "--validation_per_task", "1", "--num_workers", "1"),
        *("--tasks", "open_drawer", "--chain_length", "1"),
    ],
    "run_experiment.py": ["num_episodes=1", "videos=1", *PLAY],
    "evaluate_calvin.py": ["num_chains=1000", "chains=0-0", *PLAY],
    "evaluate_steering.py": [
        "starts=1",
        "methods=[none,pointing,reference]",
        "tasks=[open_drawer]",
        *PLAY,
    ],
}
"""Script to what is added to its arguments."""
LEFT_OUT = (
    r"^(pip|sbatch|make|bash scripts/(setup_calvin|slurm_)|python benchmarks/gpu|"
    r"(LANGSTEER_\w+=\S+ )?python -m pytest).*$"
)
NOT_HERE = ["load_reference_checkpoint", "DenoiserGraphs"]
"""A file of the reference implementation, and a GPU."""
if importlib.util.find_spec("pyarrow") is None:
    NOT_HERE += ["export_lerobot"]  # the extra [lerobot]
# What a reader of the examples is taken to have.
PRELUDE = """
import numpy as np, torch, langsteer
from langsteer.data.pointcloud import ObservationPipeline
from langsteer.envs.calvin_env import CalvinEnv
env = CalvinEnv(pipeline=ObservationPipeline(n_points=64)); env.reset(seed=0)
observation = env.observe(point_cloud=True)
cloud, robot_obs = observation["point_cloud"], observation["robot_obs"]
rows, strength = np.array([0, 1]), 0.1
clouds = torch.from_numpy(cloud).float().expand(2, 2, 64, 3)
states = torch.from_numpy(robot_obs).float().expand(2, 2, 15)
obs = {"point_cloud": clouds, "agent_pos": states}
cost = lambda actions: (actions**2).sum((1, 2))
"""


def blocks(page, language):
    """The fenced blocks of a page in order, without those that need what is not here."""
    text = page.read_text(encoding="utf-8")
    found = re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return [block for block in found if not any(name in block for name in NOT_HERE)]


@pytest.fixture(scope="session")
def tools(tmp_path_factory):
    """A folder for PATH in which `python` and `torchrun` add the small sizes."""
    folder = tmp_path_factory.mktemp("bin")
    python = f"""#!{sys.executable}
import os, sys
from pathlib import Path
sizes = {SIZES!r}
arguments = sys.argv[1:]
arguments += sizes.get(Path(arguments[0]).name, [])
os.execv({sys.executable!r}, [{sys.executable!r}, *arguments])
"""
    (folder / "python").write_text(python)
    (folder / "torchrun").write_text('#!/bin/sh\nshift 2\nexec python "$@"\n')
    for tool in folder.iterdir():
        tool.chmod(0o755)
    return folder


@pytest.fixture(scope="session")
def recordings(tmp_path_factory):
    """A dataset in CALVIN's format, for ``/path/to/calvin_dataset``."""
    folder = tmp_path_factory.mktemp("recordings") / "calvin"
    script = str(ROOT / "scripts" / "collect_demos.py")
    command = [sys.executable, script, "--save_path", str(folder), *SIZES["collect_demos.py"]]
    command += ["--episodes_per_task", "3"]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="session")
def run_page(tools, recordings):
    """Run a page's blocks in a folder."""
    assets = ROOT.parent / "shared" / "calvin_assets"

    def run(page, folder):
        (folder / "scripts").exists() or (folder / "scripts").symlink_to(ROOT / "scripts")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        script = "\n".join(blocks(page, "bash")).replace("8000", port)
        script = re.sub(r"/path/to/\w+|task_D_D\.zip", str(recordings), script)
        script = re.sub(LEFT_OUT, "true", script, flags=re.MULTILINE)
        script = re.sub(r"^(python scripts/serve.*)$", r"\1 &", script, flags=re.MULTILINE)
        if not assets.is_dir():
            script = script.replace("env.scene=D", "env.scene=builtin")
            script = script.replace("--scene D", "--scene builtin")
        environment = {
            **os.environ,
            "PATH": f"{tools}:{os.environ['PATH']}",
            "CALVIN_ENV_ROOT": str(assets),
            "OMP_NUM_THREADS": "1",
        }
        shell = f"set -e\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n{script}"
        done = subprocess.run(
            ["bash", "-c", shell], cwd=folder, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{page.name}: {done.stdout[-1500:]}\n{done.stderr[-3000:]}"
        program = "\n".join(blocks(page, "python"))
        if program:
            done = subprocess.run(
                [sys.executable, "-c", PRELUDE + program],
                cwd=folder,
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, f"{page.name}: {done.stderr[-3000:]}"

    return run


@pytest.fixture(scope="session")
def after_readme(run_page, tmp_path_factory):
    """An empty folder in which the README's blocks were run."""
    folder = tmp_path_factory.mktemp("readme")
    run_page(ROOT / "README.md", folder)
    return folder


def test_readme_runs_in_order_in_an_empty_folder(after_readme):
    assert (after_readme / CHECKPOINTS / "my_run" / "latest.ckpt").exists()
    assert list(after_readme.glob("outputs/experiments/*/report.html"))
    assert list(after_readme.glob("outputs/calvin/*/report.html"))


# docs/architecture.md has a test of its own; tests/slurm runs the commands of docs/slurm.md.
PAGES = sorted({*(ROOT / "docs").glob("*.md")} - {ROOT / "docs" / "architecture.md"})
PAGES = [page for page in PAGES if page.name != "slurm.md" and "```" in page.read_text("utf-8")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page_runs_in_order(page, after_readme, run_page, tmp_path):
    folder = tmp_path / "work"
    shutil.copytree(after_readme, folder, symlinks=True)
    # The names that the pages give to a full training's checkpoints, and to stores.
    made = folder / CHECKPOINTS / "my_run"
    shutil.rmtree(made)
    trained = min((folder / CHECKPOINTS).glob("dp3_calvin_*"))
    for name in ("my_run", "base", "dp3_calvin_20260213", "language_dp3_20260213"):
        shutil.copytree(trained, folder / CHECKPOINTS / name)
    shutil.copyfile(made / "latest.ckpt", made / "epoch_0100.ckpt")
    shutil.copytree(folder / "data" / "calvin_training.zarr", folder / "data" / "calvin_debug.zarr")
    run_page(page, folder)
