"""Compare steerings of one unconditional policy: same starts, same noise, each instruction in turn.

    python scripts/evaluate_steering.py checkpoint=outputs/checkpoints/base/latest.ckpt \
        steering.demonstrations=data/demos

``--help`` lists all keys; ``docs/steering.md`` explains them and has the recipe of the policy.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from langsteer.commands import evaluate_steering

if __name__ == "__main__":
    evaluate_steering()
