"""Where finished blocks of a part are kept until the part is finished, and who is to make which."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from backend.core.errors import UserError
from backend.core.files import MB, read, write_atomically

_MOST_MB = 4096
_SUFFIX = ".safetensors"


class Kept(Protocol):
    """Blocks by name: tensors, as safetensors writes them."""

    @property
    def is_shared(self) -> bool:
        """Whether several processes make blocks at once."""

    def inside(self, name: str) -> Kept:
        """A place of this name in it."""

    def names(self) -> Iterable[str]:
        """The blocks that are there."""

    def read(self, name: str) -> bytes | None:
        """A block; None if it is not there, or cannot be read."""

    def write(self, name: str, data: bytes) -> None:
        """Put a block there, in the place of one of this name, if that can be done."""

    def to_make(self, names: Sequence[str]) -> Iterator[str]:
        """Those of these blocks that are this process's to make, one after the other.

        At the end, the others are there.
        """


@dataclass(frozen=True)
class Folder:
    """Blocks in files, of one process."""

    path: Path
    is_shared: bool = False

    def inside(self, name: str) -> Folder:
        """A folder in the folder."""
        return Folder(self.path / name)

    def names(self) -> Iterable[str]:
        """The files without their ending."""
        return [file.stem for file in self.path.glob(f"*{_SUFFIX}")]

    def read(self, name: str) -> bytes | None:
        """A file; None if it is not there, or cannot be read."""
        with suppress(UserError):
            return read(self._file(name), _MOST_MB * MB)
        return None

    def write(self, name: str, data: bytes) -> None:
        """Write a file whole or not at all."""
        with suppress(OSError):
            write_atomically(self._file(name), data)

    def to_make(self, names: Sequence[str]) -> Iterator[str]:
        """All of them."""
        return iter(names)

    def everything(self) -> dict[str, bytes]:
        """All blocks in it, and in the folders in it, by their paths without the ending."""
        found = {}
        for file in sorted(self.path.rglob(f"*{_SUFFIX}")):
            name = str(file.relative_to(self.path))[: -len(_SUFFIX)]
            if (data := self.read(name)) is not None:
                found[name] = data
        return found

    def _file(self, name: str) -> Path:
        return self.path / f"{name}{_SUFFIX}"
