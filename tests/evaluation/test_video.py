"""What is seen in a video is seen in its GIF."""

import colorsys

import numpy as np
import pytest
from PIL import Image
from PIL.GifImagePlugin import GifImageFile

pytest.importorskip("imageio_ffmpeg")

from langsteer.envs.mp4 import Mp4Writer
from langsteer.evaluation.video import write_gif

# Colour, upper edge and left edge of a block at the film's start.
BLOCKS = {
    "magenta": ((230, 0, 230), 40, 40),
    "red": ((220, 20, 20), 80, 30),
    "blue": ((0, 0, 230), 180, 100),
    "pink": ((240, 120, 180), 200, 180),
}
HUE_TOLERANCE = 14
"""Degrees: less than half of the 30 between magenta and pink, the nearest two."""


def test_small_blocks_keep_their_colours_in_every_frame_of_a_gif(tmp_path):
    # Much brown wood and grey floor in many shades, as in CALVIN's scenes, and small blocks.
    shades = np.linspace(60, 200, 256)[None, :, None] * np.array([0.9, 0.6, 0.4])
    scene = np.repeat(shades, 256, axis=0)
    scene[128:] = np.linspace(120, 250, 256)[None, :, None]
    film, gif = tmp_path / "film.mp4", tmp_path / "film.gif"
    with Mp4Writer(film, 15) as writer:
        for shift in range(0, 40, 2):
            frame = scene.astype(np.uint8)
            for colour, row, column in BLOCKS.values():
                frame[row : row + 16, column + shift : column + 16 + shift] = colour
            writer.add(frame)
    write_gif([film], gif)
    with Image.open(gif) as images:
        assert isinstance(images, GifImageFile)
        assert images.n_frames == 10
        for number in range(images.n_frames):
            images.seek(number)
            shown = np.asarray(images.convert("RGB")).astype(int)
            for name, (colour, row, column) in BLOCKS.items():
                seen = shown[row + 8, column + 8 + 4 * number]
                assert np.abs(seen - colour).max() < 40, (number, name)
                assert abs(_hue(seen) - _hue(colour)) < HUE_TOLERANCE, (number, name)


def _hue(colour):
    """Degrees around the colour circle, in [-60, 300): red does not fall apart at 0."""
    red, green, blue = (value / 255 for value in colour)
    return (360 * colorsys.rgb_to_hsv(red, green, blue)[0] + 60) % 360 - 60
