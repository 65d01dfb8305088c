"""Run a trained policy in the simulator and measure it.

    python scripts/run_experiment.py \
        policy.ckpt_path=outputs/checkpoints/dp3_calvin_20260213/latest.ckpt num_episodes=10

``--help`` lists all keys; ``docs/evaluation.md`` says how the numbers are computed.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from langsteer.commands import experiment

if __name__ == "__main__":
    experiment()
