"""What the pages tell a user to type exists: scripts, keys, flags, targets and links."""

import os
import re
import shlex
import subprocess
import sys
from functools import cache
from itertools import takewhile
from pathlib import Path

import pytest

from langsteer.calvin.task import TASKS
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
    check_script(words)


def check_script(words):
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


@pytest.fixture
def recipe(tmp_path):
    """Runs the language policy's recipe with commands that do nothing, and returns them."""
    record = tmp_path / "python"
    record.write_text(f'#!/bin/sh\nprintf "%s\\t" "$@" >> {tmp_path}/log\necho >> {tmp_path}/log\n')
    record.chmod(0o755)

    def run(*scenes):
        script = ROOT / "scripts" / "train_language_policy.sh"
        environment = {"PATH": os.environ["PATH"], "PYTHON": str(record)}
        command = ["bash", str(script), str(tmp_path / "data"), "7", *scenes]
        subprocess.run(command, env=environment, check=True)
        return [line.split("\t")[:-1] for line in (tmp_path / "log").read_text().splitlines()]

    return run


def option(words, name):
    """The values of a command's option."""
    rest = words[words.index(name) + 1 :]
    return list(takewhile(lambda word: not word.startswith("--"), rest))


@pytest.mark.parametrize("scenes", [(), ("A", "B", "C")])
def test_the_recipe_converts_what_it_recorded_and_exports_what_it_trained(recipe, scenes):
    *collections, conversion, training, export = recipe(*scenes)
    for words in (*collections, conversion, training, export):
        check_script(["python", *words])
    assert len(collections) == 7 * len(scenes or ["builtin"])
    assert {option(words, "--scene")[0] for words in collections} == set(scenes or ["builtin"])
    assert len({option(words, "--seed")[0] for words in collections}) == len(collections)
    for words in collections:
        assert "--tasks" not in words or set(option(words, "--tasks")) < set(TASKS)
    recorded = [option(words, "--save_path")[0] for words in collections]
    assert option(conversion, "--root_dir") == recorded and len(set(recorded)) == len(recorded)
    name = next(word for word in training if word.startswith("training.experiment_name="))
    (checkpoint,) = option(export, "--ckpt_path")
    assert Path(checkpoint).parent.name == name.partition("=")[2]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"
