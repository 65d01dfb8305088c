"""What opening a CALVIN zip takes, and finding a frame in it.

    python benchmarks/archive.py 611000

It lists a zip that holds nothing but the list of so many frames, behind 166 GB of nothing: a sparse
file. `task_D_D.zip` has about 611,000 files.
"""

import resource
import struct
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from langsteer.calvin.archive import open_archive

_ENTRY, _IN_EXTRA = struct.Struct("<4s6H3L5H2L"), 2**32 - 1
_LOOKS = 1000


def main() -> None:
    """Write the zip, open it, and print seconds of CPU and bytes."""
    count = int(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "task_D_D.zip"
        _write(path, count)
        before, begun = _peak(), time.process_time()
        training = open_archive(path) / "task_D_D" / "training"
        seconds, peak = time.process_time() - begun, _peak() - before
        kept = sum(array.nbytes for array in training.archive.folders[str(training.inner)])
        begun = time.process_time()
        for number in range(0, count, max(1, count // _LOOKS)):
            assert (training / f"episode_{number:07d}.npz").is_file()
        look = (time.process_time() - begun) / _LOOKS
    print(f"{count} files: {seconds:.1f} s of CPU to open, {peak:.0f} MB at most while it is read,")
    print(f"{kept / 1e6:.0f} MB kept, {look * 1e6:.0f} µs to find a file")


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def _write(path: Path, count: int) -> None:
    with path.open("wb") as file:
        file.seek(166 << 30)
        start = file.tell()
        for number in range(count):
            name = f"task_D_D/training/episode_{number:07d}.npz".encode()
            extra = struct.pack("<HHQ", 1, 8, number * 270_000)
            sizes = (270_000, 280_000, len(name), len(extra))
            entry = (b"PK\1\2", 45, 45, 0, 8, 0, 0, 1, *sizes, 0, 0, 0, 0, _IN_EXTRA)
            file.write(_ENTRY.pack(*entry) + name + extra)
        end = file.tell()
        wide = (b"PK\6\6", 44, 45, 45, 0, 0, count, count, end - start, start)
        file.write(struct.pack("<4sQ2H2L4Q", *wide) + struct.pack("<4sLQL", b"PK\6\7", 0, end, 1))
        many, far = 2**16 - 1, 2**32 - 1
        file.write(struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, many, many, far, far, 0))


if __name__ == "__main__":
    main()
