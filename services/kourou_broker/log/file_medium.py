"""The medium on a folder of files.

    DATA/lock                       held by flock as long as the medium is open
    DATA/identity                   16 random bytes
    DATA/segments/<base>.segment    pre-written segments, named by the log position of their first byte, in hex
    DATA/segments/<n>.spare         prepared ones
    DATA/blobs/<name>               snapshots, indexes
    *.tmp                           unfinished; deleted when the folder is opened

A spare is written with real zeros, not merely allocated, so that a later fdatasync has neither a size nor an extent
to journal.
"""

import fcntl
import mmap
import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from errno import EINVAL, EIO, EROFS
from pathlib import Path
from threading import Lock

from kourou_broker.log.errors import DataLocked
from kourou_broker.log.medium import Bytes, DiskSpace, SegmentFile, segment_name

_PAGE_BYTES = 4096
_ZEROS = mmap.mmap(-1, 2 << 20)  # at a page's start, as O_DIRECT wants it
_MAX_BUFFERS = 1024  # of one pwritev (IOV_MAX)
_MAX_READ_FILES = 64
_READ_AHEAD_BYTES = 256 * 1024
_MAX_READ_NOW_BYTES = 1 << 20  # more takes longer than to ask another thread


class FileMedium:
    """A data folder.

    `read_only` is for helpers that look on while a broker runs: no lock, no change to segments. Of blobs, they may
    write those that are derived.
    """

    def __init__(self, folder: Path, *, read_only: bool = False) -> None:
        self._folder = folder
        self._read_only = read_only
        self._segments = folder / "segments"
        self._blobs = folder / "blobs"
        self._write_files: dict[int, int] = {}
        self._read_files: dict[int, int] = {}
        self._read_now_files: dict[int, int] = {}
        self._opening = Lock()
        self._spares_changing = Lock()
        self._spares: dict[Path, int] = {}
        self._spares_made = 0
        if read_only:
            self._identity = (folder / "identity").read_bytes()
            return
        self._segments.mkdir(parents=True, exist_ok=True)
        self._blobs.mkdir(exist_ok=True)
        self._lock = _lock(folder)
        try:
            self._delete_unfinished()
            self._identity = self._read_or_make_identity()
            self._find_spares()
        except BaseException:
            os.close(self._lock)
            raise

    @property
    def name(self) -> str:
        return str(self._folder)

    @property
    def identity(self) -> bytes:
        return self._identity

    # Segments

    def segments(self) -> list[SegmentFile]:
        found = [SegmentFile(int(path.stem, 16), path.stat().st_size) for path in self._segments.glob("*.segment")]
        return sorted(found)

    def spares(self) -> list[int]:
        return list(self._spares.values())

    def prepare(self, size_bytes: int) -> None:
        self._refuse_if_read_only()
        path = self._segments / "new.tmp"
        try:
            _write_zeros(path, size_bytes)
        except OSError:
            path.unlink(missing_ok=True)
            raise
        self._add_spare(path, size_bytes)

    def drop_spares(self) -> None:
        with self._spares_changing:
            for path in self._spares:
                path.unlink()
            self._spares.clear()

    def create(self, base: int, size_bytes: int) -> None:
        with self._spares_changing:
            spare = next((path for path, size in self._spares.items() if size == size_bytes), None)
            if spare is None:
                raise FileNotFoundError(f"no spare segment of {size_bytes} bytes in {self._segments}")
            spare.rename(self._path(base))
            del self._spares[spare]
        _sync_folder(self._segments)

    def write(self, base: int, offset: int, buffers: Sequence[Bytes]) -> None:
        file = self._write_file(base)
        for first in range(0, len(buffers), _MAX_BUFFERS):
            some = buffers[first : first + _MAX_BUFFERS]
            size = sum(map(len, some))
            written = os.pwritev(file, some, offset)
            if written < size:
                _write_all(file, b"".join(some)[written:], offset + written)
            offset += size

    def append(self, base: int, offset: int, buffers: Sequence[Bytes]) -> None:
        # To the end of its page, with the zeros that are there anyway: the pages of a prepared segment are not in the
        # cache, and a part of one would have to be read from the disk first.
        end = offset + sum(map(len, buffers))
        room = os.fstat(self._write_file(base)).st_size - end
        self.write(base, offset, (*buffers, bytes(min(-end % _PAGE_BYTES, room))))

    def sync(self, base: int) -> None:
        os.fdatasync(self._write_file(base))

    def read(self, base: int, offset: int, size_bytes: int) -> bytes:
        with self._opening:
            file = self._read_files.pop(base, None)
            if file is None:
                file = os.open(self._path(base), os.O_RDONLY)
            self._read_files[base] = file
            if len(self._read_files) > _MAX_READ_FILES:
                os.close(self._read_files.pop(next(iter(self._read_files))))
            # Who reads goes on, mostly: what comes next is in the page cache by then.
            os.posix_fadvise(file, offset + size_bytes, _READ_AHEAD_BYTES, os.POSIX_FADV_WILLNEED)
            return _read_all(file, offset, size_bytes)

    def view(self, base: int) -> mmap.mmap:
        with self._path(base).open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def read_now(self, base: int, offset: int, size_bytes: int) -> bytes | None:
        """From the page cache. Its files are not those of `read`, which may hold its lock while the disk works."""
        if size_bytes > _MAX_READ_NOW_BYTES:
            return None
        data = bytearray(size_bytes)
        try:
            file = self._read_now_files.pop(base, None)
            if file is None:
                file = os.open(self._path(base), os.O_RDONLY)
            self._read_now_files[base] = file
            if len(self._read_now_files) > _MAX_READ_FILES:
                self._close_read_now(next(iter(self._read_now_files)))
            read_bytes = os.preadv(file, [data], offset, os.RWF_NOWAIT)
        except (OSError, AttributeError):  # not in the page cache, or a system that cannot say so
            return None
        return bytes(data) if read_bytes == size_bytes else None

    def recycle(self, base: int) -> None:
        self._refuse_if_read_only()
        self._let_go(base)
        path = self._segments / "recycled.tmp"
        size = self._path(base).stat().st_size
        self._path(base).rename(path)
        # It must be gone as a segment before its first byte is overwritten.
        _sync_folder(self._segments)
        _write_zeros(path, size)
        self._add_spare(path, size)

    def drop(self, base: int) -> None:
        self._refuse_if_read_only()
        self._let_go(base)
        self._path(base).unlink()
        _sync_folder(self._segments)

    # Blobs

    def list_blobs(self) -> list[str]:
        return sorted(path.name for path in self._blobs.iterdir() if path.suffix != ".tmp")

    def read_blob(self, name: str) -> bytes:
        return (self._blobs / name).read_bytes()

    def view_blob(self, name: str) -> memoryview:
        with (self._blobs / name).open("rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                return memoryview(b"")
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

    def write_blob(self, name: str, data: bytes) -> None:
        _write_whole(self._blobs / name, data)

    def drop_blob(self, name: str) -> None:
        self._refuse_if_read_only()
        (self._blobs / name).unlink(missing_ok=True)

    def disk(self) -> DiskSpace:
        disk = os.statvfs(self._folder)
        return DiskSpace(disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize)

    def close(self) -> None:
        for files in (self._write_files, self._read_files, self._read_now_files):
            for file in files.values():
                os.close(file)
            files.clear()
        if not self._read_only:
            os.close(self._lock)

    def _path(self, base: int) -> Path:
        return self._segments / f"{segment_name(base)}.segment"

    def _write_file(self, base: int) -> int:
        file = self._write_files.get(base)
        if file is None:
            self._refuse_if_read_only()
            with self._opening:
                # Writing goes upwards: what lies two segments back is hardly written to again.
                while len(self._write_files) > 1:
                    os.close(self._write_files.pop(min(self._write_files)))
                file = self._write_files[base] = os.open(self._path(base), os.O_RDWR)
        return file

    def _close_read_now(self, base: int) -> None:
        """Where the loop and `_let_go` meet, one of them finds it."""
        file = self._read_now_files.pop(base, None)
        if file is not None:
            os.close(file)

    def _let_go(self, base: int) -> None:
        with self._opening:
            for files in (self._write_files, self._read_files):
                if base in files:
                    os.close(files.pop(base))
        self._close_read_now(base)

    def _add_spare(self, unfinished: Path, size_bytes: int) -> None:
        with self._spares_changing:
            self._spares_made += 1
            spare = self._segments / f"{self._spares_made:016x}.spare"
            unfinished.rename(spare)
            self._spares[spare] = size_bytes
        _sync_folder(self._segments)

    def _find_spares(self) -> None:
        for path in sorted(self._segments.glob("*.spare")):
            self._spares[path] = path.stat().st_size
            self._spares_made = max(self._spares_made, int(path.stem, 16))

    def _delete_unfinished(self) -> None:
        for folder in (self._folder, self._segments, self._blobs):
            for path in folder.glob("*.tmp"):
                path.unlink()

    def _read_or_make_identity(self) -> bytes:
        path = self._folder / "identity"
        with suppress(FileNotFoundError):
            identity = path.read_bytes()
            if len(identity) != 16:
                raise OSError(EIO, f"{path} does not hold 16 bytes")
            return identity
        identity = secrets.token_bytes(16)
        _write_whole(path, identity)
        return identity

    def _refuse_if_read_only(self) -> None:
        if self._read_only:
            raise OSError(EROFS, f"{self._folder} was opened for reading only")


def _lock(folder: Path) -> int:
    file = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(file, 32, 0).decode("ascii", "replace").strip()
        os.close(file)
        raise DataLocked(f"the data folder {folder} is in use by another process (pid {holder or 'unknown'})") from None
    os.ftruncate(file, 0)
    os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
    return file


def _write_zeros(path: Path, size_bytes: int) -> None:
    """Past the page cache where that can be done: at a tenth of the CPU, and commits queue behind no long flush."""
    try:
        _write_zeros_by(path, size_bytes, getattr(os, "O_DIRECT", 0))
    except OSError as error:
        if error.errno != EINVAL:
            raise
        _write_zeros_by(path, size_bytes, 0)  # a file system in memory, or a size that ends within a page


def _write_zeros_by(path: Path, size_bytes: int, flag: int) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | flag, 0o644)
    try:
        for offset in range(0, size_bytes, len(_ZEROS)):
            _write_all(file, memoryview(_ZEROS)[: size_bytes - offset], offset)
        os.fsync(file)
    finally:
        os.close(file)


def _write_all(file: int, data: Bytes, offset: int) -> None:
    rest = memoryview(data)
    while rest:
        written = os.pwrite(file, rest, offset)
        if written == 0:
            raise OSError(EIO, "the disk took nothing")
        rest = rest[written:]
        offset += written


def _read_all(file: int, offset: int, size_bytes: int) -> bytes:
    data = os.pread(file, size_bytes, offset)
    if 0 < len(data) < size_bytes:
        return data + _read_all(file, offset + len(data), size_bytes - len(data))
    return data


def _write_whole(path: Path, data: bytes) -> None:
    unfinished = path.with_name(path.name + ".tmp")
    try:
        with unfinished.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise
    unfinished.rename(path)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
