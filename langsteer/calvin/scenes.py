"""The scenes of CALVIN: the scene of a frame, and the order of a scene's blocks.

Example::

    scene = scene_of(split, annotation.start)       # "D"
    BLOCK_NAMES[scene]                              # ("block_red", "block_blue", "block_pink")
"""

from langsteer.calvin.dataset import CONFIG, Split
from langsteer.calvin.npy import UnreadableFileError, load_npy
from langsteer.errors import UserError
from langsteer.reading import read_yaml

_RED, _BLUE, _PINK = "block_red", "block_blue", "block_pink"
BLOCK_NAMES = {
    "builtin": (_RED, _BLUE, _PINK),
    "A": (_PINK, _BLUE, _RED),
    "B": (_RED, _BLUE, _PINK),
    "C": (_BLUE, _RED, _PINK),
    "D": (_RED, _BLUE, _PINK),
}
"""The blocks in the order of ``scene_obs``, as in each scene's configuration in calvin_env."""


def scene_of(split: Split, frame: int) -> str:
    """The scene of a recorded frame: ``"A"`` ... ``"D"`` or ``"builtin"``.

    Training folders of several scenes have it in ``scene_info.npy``, all in their configuration.

    Raises:
        UserError: it is in neither.
    """
    path = split.folder / "scene_info.npy"
    names: list[str] = []
    if path.is_file():
        try:
            table = load_npy(path).item()
            names = [str(name) for name, (first, last) in table.items() if first <= frame <= last]
        except (UnreadableFileError, ValueError, AttributeError, TypeError, OSError) as error:
            raise UserError(f"{path}: not CALVIN's table of scenes ({error})") from error
    if not names:
        try:
            names = [str(read_yaml(split.folder / CONFIG)["scene"].get("name", ""))]
        except (KeyError, TypeError, ValueError, AttributeError, OSError) as error:
            raise UserError(f"{split.folder / CONFIG}: names no scene ({error!r:.200})") from error
    scene = names[0].removeprefix("calvin_scene_")
    if scene not in BLOCK_NAMES:
        raise UserError(f"{split.folder}: scene {names[0]!r} of frame {frame} is not known")
    return scene
