"""Conversion on a real SLURM."""

import re

import numpy as np

from langsteer.data.store import open_store

OPTIONS = ["--num_points", "64", "--crop", "32", "--frames_per_file", "8"]
SCRIPT = "scripts/slurm_convert_calvin.sh"


def test_array_of_three_jobs_makes_the_store_of_one_process(
    cluster, project, calvin_folder, converted
):
    environment = {"CALVIN_ROOT": str(calvin_folder), "CALVIN_ZARR_PATH": "data/array.zarr"}
    sbatch = ["sbatch", "--wait", "--array=0-2", "--cpus-per-task=1"]
    cluster.command(*sbatch, SCRIPT, *OPTIONS, folder=project, **environment)
    one, other = open_store(project / "data" / "array.zarr"), open_store(converted)
    assert one.array_names == other.array_names
    for name in other.array_names:
        np.testing.assert_array_equal(one.read(name), other.read(name))
    np.testing.assert_array_equal(one.episode_ends, other.episode_ends)
    assert one.episodes.to_dict() == other.episodes.to_dict()
    logs = [path.read_text() for path in sorted((project / "logs").glob("convert_*_?.out"))]
    frames = [int(count) for log in logs for count in re.findall(r"(\d+) frames converted", log)]
    assert sum(frames) == other.n_frames  # nothing was done twice
    assert min(frames) > 0


def test_array_with_gaps_is_refused(run_script, calvin_folder):
    done = run_script(
        SCRIPT,
        CALVIN_ROOT=str(calvin_folder),
        SLURM_JOB_ID="1",
        SLURM_ARRAY_TASK_ID="5",
        SLURM_ARRAY_TASK_MIN="3",
        SLURM_ARRAY_TASK_MAX="5",
        SLURM_ARRAY_TASK_COUNT="2",
    )
    assert done.returncode == 2
    assert "the array has gaps; use a plain range such as --array=0-1" in done.stderr
