"""PyBullet's EGL renderer, on machines that have it; in a process of its own, for it may crash."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pybullet")

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import numpy as np
from langsteer.envs.calvin_env import CalvinEnv

egl, tiny = CalvinEnv("builtin", renderer="egl"), CalvinEnv("builtin", renderer="tiny")
for seed in range(3):  # a reset loads the world anew, and the plugin must draw the new one
    for env in (egl, tiny):
        env.reset(seed=seed)
        env.step([1, 0, -1, 0, 0, 0, 1])
    assert np.array_equal(egl.robot_obs, tiny.robot_obs)
    for camera in ("static", "gripper"):
        (rgb, depth), (rgb_tiny, depth_tiny) = (e.render_camera(camera) for e in (egl, tiny))
        assert rgb.shape == rgb_tiny.shape and depth.dtype == np.float32
        # Pixels are sampled half a pixel apart, and Mesa's depth has 16 bits only.
        assert np.median(abs(depth - depth_tiny)) < 0.03, camera
        assert np.median(abs(rgb.astype(int) - rgb_tiny)) < 60, camera
print("same scene")
"""


def run(script, **variables):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    command = [sys.executable, "-c", script]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_egl_draws_the_scene_after_every_reset():
    done = run(SCRIPT)
    if "EGL does not work" in done.stderr or "no EGL plugin" in done.stderr:
        pytest.skip("no EGL on this machine")
    assert "same scene" in done.stdout, done.stderr


def test_broken_egl_is_an_error_and_not_a_crash():
    # An empty folder of vendors: libEGL finds no driver.
    done = run(
        "from langsteer.envs.calvin_env import CalvinEnv\nCalvinEnv('builtin', renderer='egl')",
        __EGL_VENDOR_LIBRARY_FILENAMES="/nonexistent.json",
    )
    assert done.returncode == 1
    assert "use renderer 'depth' or 'tiny'" in done.stderr
