"""big_vision `.npz` files, read and written one tensor at a time.

The names inside are the tree path with '/' between (`utils.load_checkpoint_np`
at 0127fb6), with or without `params/` before them. `np.load` would read such a
file too, but reports what is wrong with one in ten different ways.
"""

import contextlib
import zipfile
import zlib
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO, Self

import numpy as np

from siglip_jax.messages import reason
from siglip_jax.weights.bounds import content_offset, is_shape, open_zip
from siglip_jax.weights.reader import BFLOAT16, FLOATS, Header, empty_aligned, select_parameters
from siglip_jax.weights.staging import staged

_CHUNK = 4 << 20


class NpzReader:
    """An open `.npz` checkpoint; a context manager (see `reader.Reader`).

    Raises:
      ValueError: if the file is missing, empty, cut short, not a `.npz`, or
        holds a tensor of a dtype that is no number.
    """

    subtree = ""

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        self.files = (Path(path),)
        try:
            self._file = Path(path).open("rb")  # noqa: SIM115  (close() closes it)
        except OSError as error:
            raise ValueError(_why_not_a_zip(Path(path), error)) from error
        try:
            try:
                self._zip = open_zip(self._file)
            except (zipfile.BadZipFile, OSError) as error:
                raise ValueError(_why_not_a_zip(Path(path), error)) from error
            except (ValueError, NotImplementedError) as error:
                raise ValueError(f"{path}: {reason(error)}; fetch it again") from error
            self._members, self.ignored = self._parameters()
            self._fortran: set[str] = set()
            self._foreign_endian: set[str] = set()
            self.shapes = {name: self._header(name) for name in self._members}
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        # The archive has nothing of its own to close: it reads a file that it was given.
        self._file.close()

    def read(self, name: str) -> np.ndarray:
        """The tensor `name`; its checksum is verified.

        Raises:
          ValueError: if the file is damaged there.
        """
        shape, dtype = self.shapes[name]
        if name in self._fortran:
            shape = shape[::-1]
        array = empty_aligned(shape, dtype)
        # Views of any dtype as bytes; a 0-d or empty array has none to offer.
        flat: Any = array.reshape(-1).view(np.uint8)
        into = memoryview(flat) if array.size else memoryview(b"")
        info = self._zip.getinfo(self._members[name])
        with self._damage(name):
            if info.compress_type == zipfile.ZIP_STORED:
                _read_stored(self._file, info, into)
            else:
                with self._zip.open(info) as file:
                    _read_npy_header(file)
                    for piece in _pieces(into):
                        _fill(piece, file)
        if name in self._foreign_endian:
            array.byteswap(inplace=True)
        return array.T if name in self._fortran else array

    def _parameters(self) -> tuple[dict[str, str], tuple[str, ...]]:
        entries = [n for n in self._zip.namelist() if not n.endswith("/")]
        foreign = [name for name in entries if not name.endswith(".npy")]
        if foreign:
            raise ValueError(
                f"{self.path} is a zip archive but no .npz: it holds {foreign[0]!r}; "
                "expected the .npz that big_vision releases"
            )
        members, ignored = select_parameters(name.removesuffix(".npy") for name in entries)
        if not members:
            raise ValueError(f"{self.path} holds no parameters ({len(entries)} entries)")
        return {name: f"{stored}.npy" for name, stored in members.items()}, ignored

    def _header(self, name: str) -> Header:
        member = self._members[name]
        with self._damage(name), self._zip.open(member) as file:
            shape, fortran, dtype = _read_npy_header(file)
            stored = self._zip.getinfo(member).file_size - file.tell()
        if dtype.kind == "V" and dtype.fields is None and dtype.itemsize == 2:
            # big_vision: numpy has no bfloat16 and saves it as two void bytes.
            dtype = BFLOAT16
        if dtype.kind in "OV" and dtype != BFLOAT16:
            kind = "pickled Python objects" if dtype.kind == "O" else f"raw bytes ({dtype})"
            raise ValueError(
                f"{self.path}: {name} holds {kind}, not numbers; only float tensors, and "
                "bfloat16 stored as |V2, are read"
            )
        if fortran and len(shape) > 1:
            self._fortran.add(name)
        if not dtype.isnative:
            self._foreign_endian.add(name)
            dtype = dtype.newbyteorder("=")
        header = Header(shape, dtype)
        if not is_shape(shape) or stored != header.nbytes:
            raise ValueError(
                f"{self.path}: {name} is damaged (it says {shape} {dtype}, which is "
                f"{header.nbytes} bytes, and has {stored}); fetch or write the file again"
            )
        return header

    @contextlib.contextmanager
    def _damage(self, name: str) -> Generator[None, None, None]:
        try:
            yield
        # numpy parses a header as Python, and raises whatever is wrong with that.
        except Exception as error:
            raise ValueError(
                f"{self.path}: {name} is damaged ({reason(error)}); fetch or write the file again"
            ) from error


def write_npz(
    path: str | Path,
    items: Iterable[tuple[str, np.ndarray]],
    *,
    prefix: str = "params/",
    compressed: bool = False,
) -> None:
    """Writes a `.npz` that big_vision's `load_params` reads; one tensor at a time.

    bfloat16 is stored as `np.savez` stores it, as void `V2`.

    Args:
      path: the file to write, atomically; must end in `.npz`, because
        big_vision tells the format by it.
      items: names (those of `weights.layout`) and float arrays.
      prefix: "params/", or "" as some released files have it.
      compressed: deflate, as `np.savez_compressed`.

    Raises:
      ValueError: for no tensors at all, a name given twice, a dtype that is no
        float, or a path that does not end in `.npz`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_npz(f"{folder}/t.npz", [("t", np.ones(1, np.float32))])
    ...     with NpzReader(f"{folder}/t.npz") as reader:
    ...         reader.read("t")
    array([1.], dtype=float32)
    """
    if Path(path).suffix != ".npz":
        raise ValueError(f"{path}: the file must be named .npz")
    method = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    written: set[str] = set()
    with staged(Path(path)) as temporary, zipfile.ZipFile(temporary, "w", method) as archive:
        for name, array in items:
            if name in written:
                raise ValueError(f"cannot write {path}: {name} is given twice")
            if array.dtype not in FLOATS:
                raise ValueError(f"cannot write {path}: {name} is {array.dtype}, not a float")
            written.add(name)
            # Sizes are not known to zipfile in advance: always leave room for 64 bits.
            with archive.open(f"{prefix}{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
        if not written:
            raise ValueError(f"cannot write {path}: there are no tensors to write")


def _read_stored(file: BinaryIO, info: zipfile.ZipInfo, into: memoryview) -> None:
    """Reads the end of an uncompressed member straight to where it belongs.

    zipfile would hand over copies of the bytes, which costs as much as reading them. What
    else it verifies it did when the header was read.
    """
    file.seek(content_offset(file, info))
    crc = zlib.crc32(file.read(info.file_size - len(into)))
    for piece in _pieces(into):
        _fill(piece, file)
        crc = zlib.crc32(piece, crc)
    if crc != info.CRC:
        raise zipfile.BadZipFile(f"Bad CRC-32 for file {info.filename!r}")


def _pieces(into: memoryview) -> Iterator[memoryview]:
    return (into[start : start + _CHUNK] for start in range(0, len(into), _CHUNK))


def _fill(piece: memoryview, file: Any) -> None:
    if file.readinto(piece) != len(piece):
        raise EOFError("it ends early")


def _read_npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(file)
    # 3.0 exists for structured types with non-ASCII field names only.
    raise ValueError(f"unknown .npy version {version}")


def _why_not_a_zip(path: Path, error: Exception) -> str:
    if path.is_dir():
        return f"{path} is a folder, not a .npz file"
    if not path.exists():
        return f"{path} does not exist"
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError:
        return f"{path} cannot be read: {reason(error)}"
    if not start:
        return f"{path} is empty; fetch it again"
    if start.startswith(b"PK\x03\x04"):
        return f"{path} is cut short or damaged ({reason(error)}); fetch it again"
    if start.startswith(b"\x93NUMPY"):
        return f"{path} is a single array (.npy), not a .npz"
    if start.startswith(b"version https://git-lfs"):
        return f"{path} is a git-lfs pointer, not the file itself; run `git lfs pull`"
    return f"{path} is not a .npz file: it begins with {start[:24]!r}"
