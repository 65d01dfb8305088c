"""A bar in a log file promises a time after the first step, and is quiet afterwards."""

import re

from langsteer.progress import progress_bar, say_doing


def test_time_left_is_shown_from_the_first_step_on(capsys):
    with progress_bar(10, "training", "step", initial=2) as bar:
        bar.update()
        (line,) = re.findall("training.*3/10.*", capsys.readouterr().err)
        assert re.search(r"<\d\d:\d\d", line)  # and not <?
        bar.update()
        assert capsys.readouterr().err == ""


def test_a_change_of_what_is_done_makes_no_line_in_a_log(capsys):
    with progress_bar(10, "training", "step") as bar:
        capsys.readouterr()
        say_doing(bar, "saving")
        assert capsys.readouterr().err == ""
        assert bar.desc.startswith("saving")


def test_a_silent_bar_counts_without_a_word(capsys):
    with progress_bar(10, "training", "step", disable=True) as bar:
        bar.update()
    assert capsys.readouterr().err == ""
