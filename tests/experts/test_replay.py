"""Recorded actions, given to the simulator again, do what the annotations say."""

import shutil
from pathlib import Path

import pytest

pytest.importorskip("pybullet")

from langsteer.calvin.dataset import open_dataset, read_annotations
from langsteer.calvin.scenes import scene_of
from langsteer.envs.calvin_env import CalvinEnv
from langsteer.experts.replay import replay
from langsteer.replay_command import main


def test_every_annotation_of_the_real_simulators_sample_is_done_again(shared, calvin_assets):
    env = CalvinEnv("D", calvin_assets, "tiny")
    for split in open_dataset(shared / "calvin_sample"):
        for annotation in read_annotations(split):
            result = replay(split, annotation, env)
            assert result.done_after is not None, annotation
            assert result.held, annotation


def test_the_scene_is_what_the_dataset_says(shared):
    for split in open_dataset(shared / "calvin_sample"):
        assert scene_of(split, read_annotations(split)[0].start) == "D"


def test_the_command_says_so_and_films_it(shared, calvin_assets, tmp_path, capsys):
    film = tmp_path / "films" / "replay.mp4"
    dataset, assets = str(shared / "calvin_sample"), str(calvin_assets)
    main([dataset, "--assets_path", assets, "--max_windows", "1", "--video", str(film)])
    assert "1 of 1 annotated tasks" in capsys.readouterr().out
    assert film.stat().st_size > 1000


def test_a_dataset_without_the_task_is_an_error(shared, capsys):
    with pytest.raises(SystemExit):
        main([str(shared / "calvin_sample"), "--tasks", "stack_block"])
    assert "no annotated window" in capsys.readouterr().err


def test_a_missing_frame_is_an_error_that_names_it_and_leaves_no_half_film(
    shared, calvin_assets, tmp_path, capsys
):
    dataset = shutil.copytree(shared / "calvin_sample", tmp_path / "calvin")
    split = open_dataset(dataset)[0]
    missing = split.frame_path(read_annotations(split)[1].start + 3)
    assert isinstance(missing, Path)
    missing.unlink()
    assets, film = str(calvin_assets), tmp_path / "films" / "replay.mp4"
    with pytest.raises(SystemExit):
        main([str(dataset), "--assets_path", assets, "--max_windows", "2", "--video", str(film)])
    assert f"{missing}: missing" in capsys.readouterr().err
    assert list(film.parent.iterdir()) == []
