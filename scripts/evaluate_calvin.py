"""Measure a policy on CALVIN's long-horizon benchmark (LH-MTLC).

    python scripts/evaluate_calvin.py \
        policy.ckpt_path=outputs/checkpoints/dp3_calvin_20260213/latest.ckpt num_workers=8

``--help`` lists all keys; ``docs/evaluation.md`` says how the numbers are computed.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from langsteer.commands import evaluate

if __name__ == "__main__":
    evaluate()
