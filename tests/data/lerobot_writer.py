"""Writes a dataset with LeRobot's own writer, in an environment that has LeRobot.

    LEROBOT_PYTHON lerobot_writer.py IN.npz FOLDER

Two episodes of colours, depth in millimetres, states, intrinsics and poses.
"""

import sys

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset

with np.load(sys.argv[1]) as arrays:
    frames = dict(arrays)
height, width = frames["depth"].shape[1:]
sizes = ["height", "width", "channels"]
features = {
    "observation.images.top": {"dtype": "image", "shape": (height, width, 3), "names": sizes},
    "observation.images.top_depth": {
        "dtype": "image",
        "shape": (height, width, 1),
        "names": sizes,
        "info": {"is_depth_map": True},
    },
    "state": {"dtype": "float32", "shape": (15,), "names": None},
    "k": {"dtype": "float32", "shape": (3, 3), "names": None},
    "pose": {"dtype": "float32", "shape": (4, 4), "names": None},
}
dataset = LeRobotDataset.create("local/theirs", 30, features, root=sys.argv[2], use_videos=False)
for row in range(len(frames["state"])):
    dataset.add_frame(
        {
            "observation.images.top": frames["colour"][row],
            "observation.images.top_depth": frames["depth"][row][..., None],
            "state": frames["state"][row],
            "k": frames["k"],
            "pose": frames["pose"],
            "task": "open the drawer",
        }
    )
    if row % 10 == 9:
        dataset.save_episode()
dataset.finalize()
