"""Reads a dataset with LeRobot's own reader, in an environment that has LeRobot.

    LEROBOT_PYTHON lerobot_reader.py FOLDER OUT.npz

It writes every value of every frame, the sentences, and the features that LeRobot found.
"""

import json
import sys
from typing import Any

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset

dataset = LeRobotDataset("local/calvin", root=sys.argv[1], depth_output_unit="m")
rows = [dataset[row] for row in range(len(dataset))]
arrays: dict[str, Any] = {
    key: np.stack([np.asarray(row[key]) for row in rows]) for key in rows[0] if key != "task"
}
said = {"episodes": dataset.num_episodes, "depth": list(dataset.meta.depth_keys)}
np.savez(sys.argv[2], task=np.array([row["task"] for row in rows]), said=json.dumps(said), **arrays)
