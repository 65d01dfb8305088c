"""Read foreign files only if they are regular, and not too large.

A pipe, a device or a loop of links in a file's place would be waited for, or read, without end.

Example::

    text = read_text(folder / "settings.json")
    tree = read_yaml(folder / ".hydra" / "merged_config.yaml")
"""

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any, Protocol

import yaml

from langsteer.errors import UserError

MOST_TEXT = 1 << 28
"""Bytes of a JSON file: the table of a million episodes takes 2^27."""
_MOST_YAML, _MOST_NODES, _MOST_DEPTH = 1 << 20, 100_000, 50


class Readable(Protocol):
    """A file: `pathlib.Path`, or one in a zip."""

    def read_bytes(self) -> bytes:
        """Its content."""


class IrregularFileError(UserError, OSError):
    """Something else is in a file's place, or the file is too large; names both."""


def open_regular(path: Path, most_bytes: int | None = None) -> int:
    """A descriptor of a file, to be read.

    Raises:
        IrregularFileError: it is a pipe, a device or a loop of links, or has more than
            ``most_bytes``.
        OSError: it is missing, a folder, or may not be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise IrregularFileError(
            f"{path}: a loop of symbolic links, expected a file; remove it"
        ) from error
    try:
        found = os.fstat(descriptor)
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(f"{path}: a folder, expected a file")
        if not stat.S_ISREG(found.st_mode):
            raise IrregularFileError(f"{path}: a pipe or a device, expected a file; remove it")
        if most_bytes is not None and found.st_size > most_bytes:
            raise IrregularFileError(
                f"{path}: {found.st_size} bytes, expected {most_bytes} at most; is it another file?"
            )
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def read_bytes(path: Readable, most_bytes: int) -> bytes:
    """A file's content; raises as `open_regular`. What lies in a zip bounds itself."""
    if not isinstance(path, Path):
        return path.read_bytes()
    with os.fdopen(open_regular(path, most_bytes), "rb") as file:
        # A read takes memory for all that it may give: ask for what there is.
        return file.read(min(most_bytes, os.fstat(file.fileno()).st_size))


def read_text(path: Readable, most_bytes: int = MOST_TEXT) -> str:
    """A file's text in UTF-8; raises as `open_regular`, and UnicodeDecodeError (a ValueError)."""
    return read_bytes(path, most_bytes).decode("utf-8")


def read_json(path: Readable, most_bytes: int = MOST_TEXT) -> Any:  # noqa: ANN401 - plain values
    """The plain values of a JSON file.

    Raises:
        ValueError: it is no JSON in UTF-8, or nested too deep.
        OSError: as `open_regular`.
    """
    try:
        return json.loads(read_text(path, most_bytes))
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def read_yaml(path: Readable) -> Any:  # noqa: ANN401 - plain values
    """The plain values of a small YAML file.

    Raises:
        ValueError: it is no YAML in UTF-8, nested deeper than 50, has more than 100 000 values,
            aliases counted, or merges.
        OSError: as `open_regular`.
    """
    try:
        return yaml.load(read_text(path, _MOST_YAML), _Loader)  # noqa: S506 - derived from SafeLoader
    except (yaml.YAMLError, RecursionError, OverflowError) as error:
        raise ValueError(f"no YAML: {error}") from error


class _Loader(yaml.SafeLoader):
    """Plain values; what would grow while it is read is refused, and dates stay words."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth, self._nodes = 0, 0
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """As the base class, with a count of what an alias stands for."""
        before, self._depth = self._nodes, self._depth + 1
        if self._depth > _MOST_DEPTH:
            raise yaml.YAMLError(f"nested deeper than {_MOST_DEPTH}")
        is_alias = self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if is_alias and id(node) not in self._sizes:
            raise yaml.YAMLError("an alias inside of what it stands for")
        # An alias gives the node that its anchor made: it counts for all below it.
        self._nodes += self._sizes.get(id(node), 1)
        if self._nodes > _MOST_NODES:
            raise yaml.YAMLError(f"more than {_MOST_NODES} values, aliases counted")
        self._sizes.setdefault(id(node), self._nodes - before)
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Refuse merges: they copy."""
        if any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value):
            raise yaml.YAMLError("a merge (<<), write the keys out")


_Loader.yaml_implicit_resolvers = {
    first: [pair for pair in pairs if pair[0] != "tag:yaml.org,2002:timestamp"]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
