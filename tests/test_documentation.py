"""What the pages tell a user to type exists: scripts, keys, flags, targets and links."""

import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from langsteer.configuration import compose

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
HYDRA = {
    "train_dp3.py": "train",
    "slurm_train_dp3.sh": "train",
    "run_experiment.py": "experiment",
    "evaluate_calvin.py": "evaluate",
    "evaluate_steering.py": "evaluate_steering",
    "serve_policy.py": "serve",
}


def commands(page):
    """Shell commands of a page's fenced and indented blocks, continuation lines joined."""
    text = re.sub(r"\\\n\s*", " ", page.read_text(encoding="utf-8"))
    pattern = r"^\s*(?:\$ )?((?:[A-Z_]+=\S+ )*(?:python|bash|sbatch|torchrun|make) .*)$"
    for line in re.findall(pattern, text, flags=re.MULTILINE):
        yield shlex.split(line, comments=True)


ALL = [(page.name, words) for page in PAGES for words in commands(page)]


def script_of(words):
    return next((word for word in words if word.startswith("scripts/")), None)


@cache
def help_text(script):
    done = subprocess.run(
        [sys.executable, str(ROOT / script), "--help"], capture_output=True, text=True
    )
    done.check_returncode()
    return done.stdout


def test_pages_hold_commands():
    assert len(ALL) > 20


@pytest.mark.parametrize(("page", "words"), ALL, ids=[" ".join((p, *w))[:60] for p, w in ALL])
def test_documented_command_exists(page, words):
    if words[0] == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        assert re.search(rf"^{words[1]}:", makefile, flags=re.MULTILINE)
        return
    script = script_of(words)
    if script is None:
        return
    assert (ROOT / script).is_file()
    arguments = words[words.index(script) + 1 :]
    name = Path(script).name
    if name in HYDRA:
        overrides = [word for word in arguments if "=" in word and not word.startswith("-")]
        compose(HYDRA[name], [word for word in overrides if "..." not in word])
    elif script.endswith(".py"):
        for word in arguments:
            if word.startswith("--"):
                assert re.search(rf"{word}\b", help_text(script)), f"{script} has no {word}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"
