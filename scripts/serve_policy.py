"""Serve a policy to other processes by openpi's protocol.

    python scripts/serve_policy.py \
        policy.ckpt_path=outputs/checkpoints/dp3_calvin_20260213/latest.ckpt port=8000

``--help`` lists all keys; ``docs/serving.md`` says what is sent and answered.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from langsteer.commands import serve

if __name__ == "__main__":
    serve()
