"""Videos of rollouts: both cameras side by side, with the words given and the outcome.

Example::

    film = Film("“open the drawer”")
    run_task(env, agent, "open_drawer", on_step=film)
    film.write(Path("episode.mp4"), "success")
"""

import base64
import io
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from imageio_ffmpeg import read_frames
from PIL import Image, ImageDraw, ImageFont

from langsteer.envs.mp4 import Mp4Writer
from langsteer.files import replacing

SIDE = 256
CAPTION = 48
STEPS_PER_FRAME = 2
FRAMES_PER_SECOND = 15
"""Real time: a control step is 1/30 s."""
_LAST_FRAME_REPEATS = 15
_THUMBNAIL = 72
"""Pixels of height."""
_COLOURS, _PALETTE_FRAMES = 128, 6
"""Of a GIF, and the number of frames to choose them from."""


class Film:
    """Collects a frame of every second step; a callback for `rollout.run_task`."""

    def __init__(self, caption: str) -> None:
        self.caption = caption
        self.frames: list[np.ndarray] = []
        self._calls = 0

    def __call__(self, env: Any) -> None:  # noqa: ANN401 - CalvinEnv, without importing it
        """Draw the cameras if a frame is due."""
        if self._calls % STEPS_PER_FRAME == 0:
            images = [env.render_camera(name)[0] for name in ("static", "gripper")]
            self.frames.append(np.concatenate([_square(image) for image in images], axis=1))
        self._calls += 1

    def captioned(self, outcome: str) -> list[np.ndarray]:
        """The frames (H, W, 3) uint8 with the caption, and the outcome on the last second."""
        plain = [_with_caption(frame, self.caption, "") for frame in self.frames]
        last = _with_caption(self.frames[-1], self.caption, outcome)
        return plain + [last] * _LAST_FRAME_REPEATS

    def write(self, path: Path, outcome: str) -> None:
        """Write an H.264 MP4 for browsers."""
        with Mp4Writer(path, FRAMES_PER_SECOND) as writer:
            for frame in self.captioned(outcome):
                writer.add(frame)


def write_gif(videos: Sequence[Path], path: Path, every: int = 2) -> None:
    """Write every ``every``-th frame as a looping GIF, for pages without videos.

    Several videos of one size stand side by side; a finished one shows its last frame.
    """
    rows = itertools.zip_longest(*(_images(video)[::every] for video in videos))
    last: list[Image.Image] = []
    images: list[Image.Image] = []
    for row in rows:
        last = [image or before for image, before in itertools.zip_longest(row, last)]
        images.append(_side_by_side(last))
    palette = _palette(images)
    images = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    with replacing(path) as temporary:
        images[0].save(
            temporary,
            format="GIF",
            save_all=True,
            append_images=images[1:],
            duration=1000 * every // FRAMES_PER_SECOND,
            loop=0,
        )


def _images(video: Path) -> list[Image.Image]:
    frames = read_frames(str(video))
    size = next(frames)["size"]
    return [Image.frombytes("RGB", size, frame) for frame in frames]


def _side_by_side(images: Sequence[Image.Image]) -> Image.Image:
    width, height = images[0].size
    picture = Image.new("RGB", (width * len(images), height))
    for index, image in enumerate(images):
        picture.paste(image, (index * width, 0))
    return picture


def _palette(images: Sequence[Image.Image]) -> Image.Image:
    """A picture with a palette for a whole film.

    The colours are spread over all that occur, and then moved towards their pixels. By the number
    of pixels alone a block of pure magenta would become a brown.
    """
    chosen = images[:: max(1, len(images) // _PALETTE_FRAMES)]
    width, height = images[0].size
    mosaic = Image.new("RGB", (width, height * len(chosen)))
    for index, image in enumerate(chosen):
        mosaic.paste(image, (0, index * height))
    return mosaic.quantize(_COLOURS, method=Image.Quantize.MAXCOVERAGE, kmeans=3)


def thumbnail_base64(video: Path) -> str:
    """The last frame without its caption, small, as JPEG in base64."""
    frames = read_frames(str(video), input_params=["-sseof", "-0.5"])
    size = next(frames)["size"]
    *_, last = frames
    image = Image.frombytes("RGB", size, last).crop((0, CAPTION, *size))
    image.thumbnail((2 * _THUMBNAIL, _THUMBNAIL))
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=80)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _square(image: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.LANCZOS))


def _with_caption(frame: np.ndarray, caption: str, outcome: str) -> np.ndarray:
    picture = Image.new("RGB", (frame.shape[1], frame.shape[0] + CAPTION), "white")
    picture.paste(Image.fromarray(frame), (0, CAPTION))  # above: a player's controls lie below
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(16)
    pen.text((8, 4), caption, fill="black", font=font)
    colour = "#1a7f37" if outcome.startswith("success") else "#b42318"
    pen.text((8, 25), outcome, fill=colour, font=font)
    return np.asarray(picture)
