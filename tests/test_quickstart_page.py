"""The quickstart's last page shows both sentences beside their controls, and leads on."""

import re
import shlex
from pathlib import Path

import pytest

pytest.importorskip("pybullet")

from langsteer.evaluation.attempts import Attempt, blank_of
from langsteer.evaluation.experiment_report import Summary
from langsteer.quickstart import FILMS, TASKS, Outcome
from langsteer.quickstart_page import write_page


def attempt(task, method, start, success):
    return Attempt(
        start=start, method=method, task=task, instruction=task, understood=task, success=success,
        others=[], steps=9, prediction_ms=1.0, denoiser_calls=1, gradient_calls=0, path=[],
        samples=[],
    )  # fmt: skip


def test_page_has_each_sentence_beside_its_controls_and_links_that_lead(tmp_path):
    outcomes = {"none": (), "pointing": range(5), blank_of("pointing"): (1,)}
    attempts = [
        attempt(task, method, start, start in done)
        for start in range(5)
        for task in TASKS
        for method, done in outcomes.items()
    ]
    checkpoint = tmp_path / "checkpoints" / "run" / "latest.ckpt"
    summary = Summary(tmp_path / "experiment", {}, [{"success": True}] * 9 + [{"success": False}])
    outcome = Outcome(summary, attempts, checkpoint, tmp_path / "a.zarr")
    page = write_page(tmp_path, outcome, seconds=90).read_text()
    cells = "<td>5 of 5 (57-100 %)</td><td>0 of 5 (0-43 %)</td><td>1 of 5 (4-62 %)</td>"
    assert page.count(cells) == len(TASKS)
    assert "90.0 % (9 of 10" in page
    assert "1.5 minutes" in page
    links = {*FILMS.values(), "checkpoints/run/curves.png", "experiment/report.html"}
    assert links < set(re.findall(r'(?:src|href)="([^"]+)"', page))
    commands = [shlex.split(command)[0] for command in re.findall("<pre>(.*?)</pre>", page)]
    assert [Path(command).name for command in commands] == [
        "langsteer-experiment", "langsteer-visualize", "langsteer-convert",
    ]  # fmt: skip
    assert all(Path(command).is_file() for command in commands)
