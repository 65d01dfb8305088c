"""The worked examples of docs/architecture.md run, each in a program and a folder of its own."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[1] / "docs" / "architecture.md"
SECTIONS = PAGE.read_text(encoding="utf-8").split("\n## ")
EXAMPLES = {
    section.partition("\n")[0]: code
    for section in SECTIONS
    for code in re.findall(r"```python\n(.+?)```", section, re.DOTALL)
}


def test_each_kind_of_addition_has_an_example():
    kinds = ("policy", "guidance", "task", "scene", "dataset")
    assert list(EXAMPLES) == [f"A new {kind}" for kind in kinds]


@pytest.mark.parametrize("title", EXAMPLES)
def test_the_example_runs(title, tmp_path):
    code = EXAMPLES[title]
    if "langsteer.envs" in code:
        pytest.importorskip("pybullet")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
