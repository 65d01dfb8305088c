"""A pickle from a stranger is data: whatever its bytes are, the process lives and runs nothing."""

import contextlib
import io
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langsteer.calvin.npy import UnreadableFileError, load_npy
from langsteer.errors import UserError
from langsteer.inert_pickle import InertUnpickler, RefusedPickleError
from langsteer.policies.dp3.reference import read_reference_checkpoint


def _dtype(code: bytes, order: bytes, flags: bytes) -> bytes:
    """What NumPy pickles for a dtype."""
    made = b"cnumpy\ndtype\nX\x02\x00\x00\x00" + code + b"\x89\x88\x87R"
    state = b"(K\x03X\x01\x00\x00\x00" + order + b"NNN" + b"J\xff\xff\xff\xff" * 2
    return made + state + b"K" + flags + b"tb"


DTYPE_O, DTYPE_F = _dtype(b"O8", b"|", b"?"), _dtype(b"f8", b"<", b"\x00")
POINTERS = b"C\x10" + b"\x41" * 16
ARRAY = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"

HOSTILE = {
    "object array of bytes": ARRAY + b"(K\x01K\x02\x85" + DTYPE_O + b"\x89" + POINTERS + b"tb.",
    "object scalar of bytes": b"cnumpy.core.multiarray\nscalar\n"
    + DTYPE_O
    + b"C\x08AAAAAAAA\x86R.",
    "ndarray of a buffer": b"cnumpy\nndarray\n(K\x02\x85" + DTYPE_O + POINTERS + b"tR.",
    "frombuffer of objects": b"cnumpy.core.numeric\n_frombuffer\n("
    + (POINTERS + DTYPE_O + b"K\x02\x85X\x01\x00\x00\x00CtR."),
    "dtype whose state has fields": b"cnumpy\ndtype\nX\x02\x00\x00\x00V8\x89\x88\x87R"
    b"(K\x03X\x01\x00\x00\x00|NX\x01\x00\x00\x00a\x85}X\x01\x00\x00\x00a"
    + (DTYPE_O + b"K\x00\x86sK\x08K\x01K\x00tb."),
    "shape beyond the bytes": ARRAY
    + b"(K\x01J\xff\xff\xff\x7f\x85"
    + DTYPE_F
    + b"\x89"
    + POINTERS
    + b"tb.",
    "negative shape": ARRAY
    + b"(K\x01J\xfe\xff\xff\xff\x85"
    + DTYPE_F
    + b"\x89"
    + POINTERS
    + b"tb.",
    "state of a class": b"cnumpy\nndarray\nN}X\x01\x00\x00\x00aK\x01s\x86b.",
    "memo of 2**31 places": b"\x80\x04Nr\xff\xff\xff\x7f.",
    "hash of a deep tuple": b"\x80\x04}" + b")" + b"\x85" * 1_000_000 + b"Ns.",
    "exponential tuple": b"\x80\x04}N" + b"2\x86" * 90 + b"Ns.",
    "call of an exponential tuple": b"\x80\x04N" + b"2\x86" * 90 + b")R.",
    "long of 2**31 bytes": b"\x80\x02\x8b\xff\xff\xff\x7f\x01.",
    "integer of a megabyte": b"\x80\x02\x8b" + struct.pack("<i", 2**20) + b"\x7f" * 2**20 + b".",
    "bytes of 2**63": b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",
    "array of itself": ARRAY + b"q\x00(K\x01K\x01\x85" + DTYPE_O + b"\x89]h\x00atb.",
    "nothing": b".",
    "no end": b"\x80\x04N",
    "buffer from outside": b"\x80\x05\x97.",
    "extension registry": b"\x80\x02\x82\x01.",
}


def npy_of(pickled: bytes) -> bytes:
    """A ``.npy`` that claims to hold one pickled object."""
    file = io.BytesIO()
    header = {"descr": "|O", "fortran_order": False, "shape": ()}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + pickled


def checkpoint_of(pickled: bytes, storage: bytes = bytes(24)) -> bytes:
    """A file as of ``torch.save`` with a pickle and one storage."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/data.pkl", pickled)
        archive.writestr("a/data/0", storage)
    return file.getvalue()


@pytest.fixture(scope="module")
def in_another_process():
    """Say what became of a read in a process with 1 GB to spare; a signal there is seen here."""

    def read(expression: str, path: Path) -> str:
        code = (
            "import resource, sys, pathlib\n"
            "import numpy as np\n"
            "from langsteer.errors import UserError\n"
            "from langsteer.calvin.npy import UnreadableFileError, load_npy\n"
            "import torch\n"  # a CUDA build maps gigabytes before it reads anything
            "pages = int(pathlib.Path('/proc/self/statm').read_text().split()[0])\n"
            "limit = pages * resource.getpagesize() + 1024**3\n"
            "resource.setrlimit(resource.RLIMIT_AS, (limit, limit))\n"
            "try:\n"
            f"    print(repr({expression})[:200])\n"
            "except (UserError, UnreadableFileError) as error:\n"
            "    print('refused:', str(error)[:300])\n"
        )
        ran = subprocess.run(
            [sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60
        )
        assert ran.returncode == 0, (ran.returncode, ran.stderr[-2000:])
        return ran.stdout

    return read


@pytest.mark.parametrize("name", HOSTILE)
def test_no_pickle_of_a_stranger_ends_the_process(name, tmp_path, in_another_process):
    path = tmp_path / "auto_lang_ann.npy"
    path.write_bytes(npy_of(HOSTILE[name]))
    assert in_another_process("load_npy(pathlib.Path(sys.argv[1]))", path).startswith("refused")


@pytest.mark.parametrize("name", [name for name in HOSTILE if "exponential" in name])
def test_a_bomb_in_a_checkpoint_is_refused_in_a_moment(name, tmp_path, in_another_process):
    path = tmp_path / "a.ckpt"
    path.write_bytes(checkpoint_of(HOSTILE[name]))
    module = "__import__('langsteer.policies.dp3.reference', fromlist=['a'])"
    read = f"{module}.read_reference_checkpoint(pathlib.Path(sys.argv[1]))"
    assert in_another_process(read, path).startswith("refused")


TENSOR = (
    b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
    b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpu%btQ%b\x89ccollections\nOrderedDict\n)RtR."
)


@pytest.mark.parametrize(
    ("count", "view"),
    [
        (b"K\x06", b"K\x00J\xff\xff\xff\x7f\x85K\x00\x85"),  # expanded
        (b"K\x06", b"K\x00K\x07\x85K\x01\x85"),
        (b"K\x06", b"K\x04K\x03\x85K\x01\x85"),
        (b"K\x06", b"K\x00K\x02\x85\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f\x85"),
        (b"K\x06", b"J\xff\xff\xff\xffK\x02\x85K\x01\x85"),
        (b"K\x07", b"K\x00K\x06\x85K\x01\x85"),
        (b"J\xff\xff\xff\xff", b"K\x00K\x06\x85K\x01\x85"),
    ],
)
def test_a_view_beyond_its_storage_is_refused(tmp_path, count, view):
    path = tmp_path / "a.ckpt"
    path.write_bytes(checkpoint_of(TENSOR % (count, view)))
    with pytest.raises(UserError, match=r"a\.ckpt.*storage"):
        read_reference_checkpoint(path)


def test_a_compressed_checkpoint_is_refused(tmp_path):
    path = tmp_path / "a.ckpt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", pickle.dumps({"a": bytes(10**6)}))
    with pytest.raises(UserError, match="compressed"):
        read_reference_checkpoint(path)


def test_what_a_call_copies_is_bounded_by_the_file(tmp_path):
    text = b"X" + struct.pack("<I", 10**5) + b"a" * 10**5 + b"q\x010"
    latin1 = b"X\x06\x00\x00\x00latin1"
    again = b"c_codecs\nencode\nh\x01" + latin1 + b"\x86R"
    path = tmp_path / "a.npy"
    path.write_bytes(npy_of(b"\x80\x02" + text + b"(" + again * 1000 + b"t."))
    with pytest.raises(UnreadableFileError, match="unpacks to more than it holds"):
        load_npy(path)


def test_arrays_come_back_as_numpy_wrote_them(tmp_path):
    content = np.empty((), dtype=object)
    arrays: list[np.ndarray | np.generic] = [
        np.arange(6.0).reshape(2, 3),
        np.asfortranarray(np.arange(6, dtype=">i4").reshape(2, 3)),
        np.array([], dtype="f4"),
        np.array(["ä", "bc"]),
        np.array([True, False]),
        np.array([{"a": 1}, [2], None, "x"], dtype=object),
        np.float32(3.5),
        np.str_(""),
        np.bytes_(b"ab"),
    ]
    content[()] = arrays
    for protocol in range(6):
        path = tmp_path / f"{protocol}.npy"
        path.write_bytes(npy_of(pickle.dumps(content, protocol=protocol)))
        for read, written in zip(load_npy(path).item(), arrays, strict=True):
            np.testing.assert_array_equal(read, written)
            assert read.dtype == written.dtype and type(read) is type(written)


class _Numbers(InertUnpickler):
    pass


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False)
    | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner)
    | st.sets(st.text()) | st.frozensets(st.integers(0, 9)),
    max_leaves=20,
)  # fmt: skip


@given(PLAIN, st.integers(4, 5))
@settings(max_examples=100)
def test_plain_values_come_back_equal(value, protocol):
    assert _Numbers(pickle.dumps(value, protocol=protocol)).load() == value


def _read_all(folder: Path, pickled: bytes) -> None:
    """Both readers: each gives a value or its own error, and nothing else."""
    path = folder / "a"
    path.write_bytes(npy_of(pickled))
    with contextlib.suppress(UnreadableFileError):
        load_npy(path)
    path.write_bytes(checkpoint_of(pickled))
    with contextlib.suppress(UserError):
        read_reference_checkpoint(path)


SEEDS = [*HOSTILE.values(), TENSOR % (b"K\x06", b"K\x00K\x06\x85K\x01\x85")]
SEEDS = [seed for seed in SEEDS if len(seed) < 1000]
OPCODES = st.sampled_from([bytes([code]) for code in range(0x28, 0x98)]) | st.sampled_from(
    [DTYPE_O, DTYPE_F, ARRAY, POINTERS, b"K\x02", b"K\x00\x85", b"\x85", b"\x86", b"R", b"b", b"("]
)


@st.composite
def mutated(draw, seeds=tuple(SEEDS)):
    """A seed with some of its bytes replaced, cut out or doubled."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(data)))
        change = draw(st.binary(max_size=3) | OPCODES)
        data[place : place + draw(st.integers(0, 8))] = change
    return bytes(data)


RANDOM = st.lists(OPCODES | st.binary(max_size=4), max_size=40).map(b"".join)


@given(RANDOM | mutated())
@settings(max_examples=200)
def test_any_opcodes_give_a_value_or_an_error(tmp_path_factory, pickled):
    _read_all(tmp_path_factory.getbasetemp(), pickled)


@pytest.mark.slow
@given(RANDOM | mutated())
@settings(max_examples=6000)
def test_any_opcodes_give_a_value_or_an_error_at_length(tmp_path_factory, pickled):
    _read_all(tmp_path_factory.getbasetemp(), pickled)


def test_refusals_name_what_was_asked_for():
    with pytest.raises(RefusedPickleError, match=r"os\.system"):
        _Numbers(b"cos\nsystem\n.").load()
