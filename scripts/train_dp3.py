"""Train DP3 on a converted CALVIN dataset.

    export CALVIN_ZARR_PATH=data/calvin_debug.zarr
    python scripts/train_dp3.py training=dp3_debug

``--help`` lists all keys; ``docs/training.md`` explains them, and how to train on many GPUs.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from langsteer.commands import train

if __name__ == "__main__":
    train()
