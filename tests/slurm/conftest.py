"""A real SLURM of two nodes on this machine, and jobs on it.

Skipped, with the reason, where it cannot be had: it needs root, ``../shared`` and, the first time,
Debian's packages.
"""

import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from tests.trainings import Training, clean_environment

ROOT = Path(__file__).resolve().parents[2]
# 420 steps, validated and saved each 140.
SHORT = [
    "training.batch_size=4",
    "training.num_epochs=60",
    "training.val_every=20",
    "training.checkpoint_every=20",
    "training.val_action_samples=4",
    "training.log_every=5",
]
CONVERTED = ["--num_points", "64", "--crop", "32", "--frames_per_file", "8"]
# Seconds that anything may take on a machine with much else to do; half a minute is usual.
PATIENCE = 300
# Addresses tried for the nodes, before the tests are skipped.
SUBNETS_TRIED = 8
# The node's CPUs of one task; the cluster has no GPU to train on.
CPU_ONLY = ["--gpus-per-node=0", "--cpus-per-task=1"]


def wait_until(holds: Callable[[], object], seconds: float, what: Callable[[], str]) -> None:
    """Poll until something holds; ``what`` explains where it does not in time."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, what()
        time.sleep(0.2)


class Job:
    """A submitted job."""

    def __init__(self, cluster: "Cluster", number: str, folder: Path) -> None:
        self.cluster, self.number, self.folder = cluster, number, folder

    def field(self, name: str) -> str:
        """A field of ``scontrol show job``, e.g. JobState or Restarts."""
        shown = self.cluster.command("scontrol", "show", "job", "-o", self.number)
        found = re.search(rf"\b{name}=(\S*)", shown)
        assert found, shown
        return found[1]

    def log(self) -> str:
        """All that the job printed, standard error last."""
        logs = sorted((self.folder / "logs").glob(f"*_{self.number}.*"), reverse=True)
        return "\n".join(path.read_text() for path in logs)

    def wait(self, state: str, seconds: float = PATIENCE) -> None:
        """Until the job is in a state; a job that ends in another fails the test."""
        ended = ("COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", "NODE_FAIL", "OUT_OF_MEMORY")

        def there() -> bool:
            found = self.field("JobState")
            assert found == state or found not in ended, f"{found}\n{self.log()}"
            return found == state

        wait_until(there, seconds, lambda: f"not {state}: {self.field('JobState')}\n{self.log()}")

    def wait_for_restart(self, count: int) -> None:
        """Until the job was requeued ``count`` times and has not been started again more often."""
        wait_until(lambda: int(self.field("Restarts")) >= count, PATIENCE, self.log)
        assert int(self.field("Restarts")) == count

    def wait_for_log(self, text: str) -> None:
        """Until the job has printed something."""
        wait_until(lambda: text in self.log(), PATIENCE, self.log)

    def processes(self, rank: int) -> list[int]:
        """Processes of a rank, found by folder and environment; all nodes are on this machine."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has ended
                variables = set((process / "environ").read_bytes().split(b"\0"))
                is_rank = {f"SLURM_PROCID={rank}".encode(), b"SLURM_STEP_ID=0"} <= variables
                if is_rank and (process / "cwd").resolve() == self.folder:
                    found.append(int(process.name))
        return found

    def wait_for_end_of_rank(self, rank: int) -> None:
        """Until no process of a rank is left."""
        wait_until(lambda: not self.processes(rank), PATIENCE, self.log)

    @property
    def experiment(self) -> Path:
        """The folder of the training's checkpoints."""
        return self.folder / "outputs" / "checkpoints" / f"dp3_debug_{self.number}"

    def wait_for_step(self, step: int) -> None:
        """Until the training has logged an optimiser step."""
        wait_until(
            lambda: any(record["step"] >= step for record in metrics(self.experiment)),
            PATIENCE,
            lambda: f"step {step} does not come: {self.field('JobState')}\n{self.log()}",
        )


class Cluster:
    """Commands of SLURM, in the folder of a project."""

    def __init__(self, configuration: Path) -> None:
        self.configuration = configuration

    def command(self, *arguments: str, folder: Path | None = None, **environment: str) -> str:
        """Run a command of SLURM and return what it printed."""
        done = subprocess.run(
            arguments,
            cwd=folder,
            env=clean_environment(SLURM_CONF=str(self.configuration), **environment),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{arguments}\n{done.stdout}{done.stderr}"
        return done.stdout

    def set_network(self, node: str, state: str) -> None:
        """Cut a node off (``down``) or connect it again (``up``)."""
        daemon = self.configuration.with_name(f"slurmd-{node}.pid").read_text().strip()
        enter = ["nsenter", "--net", f"--target={daemon}"]
        subprocess.run([*enter, "ip", "link", "set", "eth0", state], check=True)

    def submit(
        self, folder: Path, script: str, *arguments: str, options: list[str], **environment: str
    ) -> Job:
        """``sbatch OPTIONS SCRIPT ARGUMENTS`` in a folder."""
        command = ["sbatch", "--parsable", *options, script, *arguments]
        number = self.command(*command, folder=folder, **environment).strip()
        return Job(self, number, folder)


@pytest.fixture(scope="session")
def cluster(shared: Path) -> Iterator[Cluster]:
    """A cluster of two nodes with addresses of their own, in a folder of its own."""
    if os.geteuid() != 0:
        pytest.skip("a SLURM of our own needs root")
    folder = Path(tempfile.mkdtemp(prefix="langsteer-slurm"))
    tool = ["bash", str(shared / "tools" / "slurm_local.sh")]
    try:
        for place in random.sample(range(200), SUBNETS_TRIED):
            settings = clean_environment(
                SLURM_LOCAL_DIR=str(folder),
                # Nodes that share the loopback do not find each other by name.
                SLURM_LOCAL_NET="netns",
                SLURM_LOCAL_SUBNET=f"10.214.{place}",
                SLURM_LOCAL_PORT=str(17000 + 10 * place),
            )
            started = subprocess.run([*tool, "start"], env=settings, capture_output=True, text=True)
            said = (started.stdout + started.stderr).strip()[-300:]
            if "is in use" not in said:  # by the cluster of another test, perhaps a killed one
                break
        if started.returncode:
            pytest.skip(f"no SLURM here: {said}")
        yield Cluster(folder / "slurm.conf")
    finally:
        subprocess.run([*tool, "stop"], env=settings, capture_output=True)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def calvin_folder(make_calvin: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory):
    """A CALVIN folder of some hundred frames."""
    windows = [
        (10, 30, "open_drawer", "pull the drawer"),
        (25, 45, "close_drawer", "push the drawer"),
        (50, 60, "open_drawer", "open it"),
        (70, 100, "turn_on_led", "press the button"),
    ]
    splits = {
        "training": ([(10, 61), (62, 110)], windows),
        "validation": ([(200, 230)], [(203, 228, "open_drawer", "pull it out")]),
    }
    return make_calvin(tmp_path_factory.mktemp("slurm") / "calvin", splits)


@pytest.fixture(scope="session")
def converted(calvin_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store that a single process makes of `calvin_folder`."""
    path = tmp_path_factory.mktemp("converted") / "single.zarr"
    script = str(ROOT / "scripts" / "convert_calvin_to_zarr.py")
    arguments = ["--root_dir", str(calvin_folder), "--save_path", str(path), *CONVERTED]
    command = [sys.executable, script, *arguments, "--num_workers", "1"]
    subprocess.run(command, check=True, capture_output=True, env=clean_environment())
    return path


@pytest.fixture
def project(tmp_path: Path, converted: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of its own, by links, whose data is `converted`."""
    for name in ("langsteer", "conf", "scripts"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "logs").mkdir()
    is_venv = Path(sys.prefix, "bin", "activate").exists()
    monkeypatch.setenv("VENV", sys.prefix if is_venv else "")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("CALVIN_ZARR_PATH", str(converted))
    return tmp_path


@pytest.fixture
def submit_training(
    cluster: Cluster, project: Path, tiny_overrides: list[str]
) -> Iterator[Callable[..., Job]]:
    """``submit_training(options, *overrides)`` a tiny training by the shipped script."""
    jobs = []

    def submit(options: list[str], *overrides: str, **environment: str) -> Job:
        script = "scripts/slurm_train_dp3.sh"
        arguments = [*tiny_overrides, *overrides]
        options = [*CPU_ONLY, *options]
        jobs.append(cluster.submit(project, script, *arguments, options=options, **environment))
        return jobs[-1]

    yield submit
    for job in jobs:
        if job.field("JobState") in ("PENDING", "RUNNING", "COMPLETING"):
            cluster.command("scancel", job.number)


@pytest.fixture(scope="session")
def tiny_overrides(tiny_training: list[str]) -> list[str]:
    """The keys of the training that is submitted."""
    return [*tiny_training, *SHORT]


@pytest.fixture(scope="session")
def undisturbed(
    converted: Path, tiny_overrides: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The experiment of the same training by two processes of torchrun."""
    training = Training(converted, tmp_path_factory.mktemp("torchrun"), tiny_overrides)
    training.run("training.experiment_name=undisturbed", ranks=2)
    return training.folder / "undisturbed"


def metrics(experiment: Path) -> list[dict[str, float]]:
    """The records of an experiment, without those that tell the time."""
    path = experiment / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    records = []
    for line in lines:
        try:
            record = json.loads(line)
        except json.JSONDecodeError:  # being written
            continue
        records.append({key: value for key, value in record.items() if "per_second" not in key})
    return records


def differences(one: object, other: object, where: str = "") -> list[str]:
    """Where two nests of tensors and plain values are not equal to the bit."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return [] if torch.equal(one, other) else [where]
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return [line for key in one for line in differences(one[key], other[key], f"{where}/{key}")]
    return [] if one == other else [where]


@pytest.fixture
def assert_same_run() -> Callable[[Path, Path], None]:
    """Checks that two experiments ended with equal weights, optimiser, progress and metrics."""

    def check(experiment: Path, expected: Path) -> None:
        names = ("model", "ema", "optimizer", "progress", "metrics", "rng")
        one, other = (
            {name: torch.load(path / "latest.ckpt", weights_only=True)[name] for name in names}
            for path in (experiment, expected)
        )
        assert not differences(one, other)
        assert metrics(experiment) == metrics(expected)

    return check


@pytest.fixture
def patched_ranks(tmp_path: Path) -> Callable[[str], dict[str, str]]:
    """The environment in which each rank, and nothing else, runs some Python before it trains."""

    def environment(code: str) -> dict[str, str]:
        folder = tmp_path / "patch"
        folder.mkdir(exist_ok=True)
        (folder / "sitecustomize.py").write_text(
            f"import os\nif 'SLURM_STEP_ID' in os.environ:\n{textwrap.indent(code, '    ')}"
        )
        return {"PYTHONPATH": str(folder)}

    return environment


@pytest.fixture
def run_script(project: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a script on the "login node", outside of any job."""

    def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", *command],
            cwd=project,
            env=clean_environment(**environment),
            capture_output=True,
            text=True,
        )

    return run


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests here share one cluster, hence one of xdist's workers."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("slurm"))
            item.add_marker(pytest.mark.timeout(4 * PATIENCE))
