"""What is seen in a video is seen in its GIF."""

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("imageio_ffmpeg")

from langsteer.envs.mp4 import Mp4Writer
from langsteer.evaluation.video import write_gif

MAGENTA, BLUE = (230, 0, 230), (0, 0, 230)


def test_small_blocks_keep_their_colours_in_every_frame_of_a_gif(tmp_path):
    # Much brown wood and grey floor in many shades, as in CALVIN's scenes, and two small blocks.
    shades = np.linspace(60, 200, 256)[None, :, None] * np.array([0.9, 0.6, 0.4])
    scene = np.repeat(shades, 256, axis=0)
    scene[128:] = np.linspace(120, 250, 256)[None, :, None]
    film, gif = tmp_path / "film.mp4", tmp_path / "film.gif"
    with Mp4Writer(film, 15) as writer:
        for shift in range(0, 40, 2):
            frame = scene.astype(np.uint8)
            frame[40:56, 40 + shift : 56 + shift] = MAGENTA
            frame[180:196, 100 : 116 + shift] = BLUE
            writer.add(frame)
    write_gif([film], gif)
    with Image.open(gif) as images:
        assert images.n_frames == 10
        for number in range(images.n_frames):
            images.seek(number)
            shown = np.asarray(images.convert("RGB")).astype(int)
            for colour, row, column in ((MAGENTA, 48, 48 + 4 * number), (BLUE, 188, 108)):
                assert np.abs(shown[row, column] - colour).max() < 40, (number, colour)
