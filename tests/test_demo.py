"""The demo: a person's sentence, the policy that comes with the package, and what it leaves."""

import pytest

pytest.importorskip("pybullet")

from langsteer.demo import demo
from langsteer.demo_command import main
from langsteer.errors import UserError


def test_the_sentence_chooses_the_task_and_is_what_the_policy_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sentence = "please, pull the drawer open [now], will you?"
    summary = demo(sentence, tries=1)
    (episode,) = summary.episodes
    assert (episode["task"], episode["instruction"]) == ("open_drawer", sentence)
    assert sentence in episode["caption"]
    assert (summary.folder / "report.html").stat().st_size > 10_000
    assert (summary.folder / "episodes" / "0000.mp4").is_file()


def test_the_shipped_policy_opens_the_drawer_when_told(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["open the drawer", "--tries", "2"])
    printed = capsys.readouterr().out
    assert "means open_drawer: done in 100 %" in printed.replace("100.0", "100")


@pytest.mark.parametrize(
    "sentence", ["", "sing a song", "öffne die Schublade", "push the block left"]
)
def test_a_sentence_that_means_no_task_is_refused(sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError):
        demo(sentence)
    assert not list(tmp_path.iterdir())
