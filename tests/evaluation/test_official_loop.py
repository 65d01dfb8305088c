"""mees/calvin's own evaluation and ours: the same actions and the same results."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pybullet")

LOOP = Path("calvin_models") / "calvin_agent" / "evaluation" / "evaluate_policy.py"


@pytest.mark.slow
def test_official_evaluation_and_ours_do_the_same_to_the_bit(checkpoint, tmp_path):
    checkout = os.environ.get("MEES_CALVIN", "")
    if not (Path(checkout) / LOOP).is_file():
        pytest.skip("MEES_CALVIN names no checkout of github.com/mees/calvin")
    script = Path(__file__).with_name("official_loop.py")
    command = [sys.executable, str(script), str(checkpoint), "3", "12", "builtin", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    found = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    assert found["same"] and found["official"] == found["ours"]
    assert found["steps"] == [3 * 12, 3 * 12]
