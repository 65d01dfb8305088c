"""Threads of PyTorch wait asleep, unless the user has chosen otherwise."""

import os
import subprocess
import sys

import pytest

from langsteer.threads import ASLEEP, CHOSEN_BY_USER, THREAD_COUNTS


def policy_of_openmp(code: str, **environment: str) -> str:
    """What a fresh process's OpenMP library says of its own settings after ``code``."""
    chosen = (*CHOSEN_BY_USER, *THREAD_COUNTS)
    inherited = {name: value for name, value in os.environ.items() if name not in chosen}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=inherited | {"OMP_DISPLAY_ENV": "true"} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line for line in done.stderr.splitlines() if "OMP_WAIT_POLICY" in line]
    if not lines:
        pytest.skip("PyTorch's OpenMP library does not print its settings")
    return lines[0].split("'")[1].lower()


def test_openmp_waits_asleep_where_langsteer_is_imported_first():
    assert policy_of_openmp("import langsteer, torch") == "passive"


def test_policy_of_the_user_stands():
    assert policy_of_openmp("import langsteer, torch", OMP_WAIT_POLICY="active") == "active"


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "KMP_BLOCKTIME", "GOMP_SPINCOUNT"])
def test_any_choice_of_the_user_is_left_alone(name):
    code = "import os, langsteer; print({n: os.environ.get(n) for n in os.environ if n in %r})"
    environment = {key: value for key, value in os.environ.items() if key not in CHOSEN_BY_USER}
    done = subprocess.run(
        [sys.executable, "-c", code % (CHOSEN_BY_USER,)],
        env=environment | {name: "5"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == str({name: "5"})


def test_processes_that_it_starts_inherit_the_policy():
    code = f"import os, langsteer; assert os.environ.items() >= {ASLEEP!r}.items()"
    environment = {key: value for key, value in os.environ.items() if key not in CHOSEN_BY_USER}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
