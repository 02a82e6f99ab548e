"""The text of the nights: a folder whose files come, go and change their names."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path

NUM_PIECES = 24
_MOST_BYTES = 60_000


class Corpus:
    """A folder of text files, and texts beside it that nobody should train on."""

    def __init__(self, folder: Path, text: bytes) -> None:
        self.folder, self._aside = folder / "texts", folder / "aside"
        self.folder.mkdir()
        self._aside.mkdir()
        size = min(_MOST_BYTES, len(text) // NUM_PIECES)
        paragraphs = text.split(b"\n\n")
        self._pieces = self._cut(paragraphs, size)
        self._count = 0

    @staticmethod
    def _cut(paragraphs: Iterable[bytes], size: int) -> list[bytes]:
        pieces, piece = [], b""
        for paragraph in paragraphs:
            piece += paragraph + b"\n\n"
            if len(piece) >= size:
                pieces.append(piece)
                piece = b""
        return pieces

    def add(self, number: int) -> None:
        """Add files that are new."""
        for _ in range(number):
            (self.folder / f"day-{self._count:02}.txt").write_bytes(self._pieces[self._count])
            self._count += 1

    def rename(self) -> None:
        """Give the first file another name."""
        first = self._files()[0]
        first.rename(first.with_name(f"renamed-{first.name}"))

    def remove(self) -> None:
        """Remove the first file."""
        self._files()[0].unlink()

    def repeat(self) -> None:
        """Add a file with the text of the first one."""
        first = self._files()[0]
        first.with_name(f"again-{first.name}").write_bytes(first.read_bytes())

    def add_damaged(self) -> None:
        """Add a file that is not UTF-8."""
        (self.folder / "damaged.txt").write_bytes(self._pieces[0][:500] + b"\xff" + self._pieces[0][500:])

    def remove_damaged(self) -> None:
        """Remove the file that is not UTF-8."""
        (self.folder / "damaged.txt").unlink()

    def repeated_line(self) -> Path:
        """Return a file with one line, many times."""
        return self._write("repeated.txt", b"And so say all of us, and so say all.\n\n" * 5000)

    def shuffled(self) -> Path:
        """Return a file with the words of all files in a random order, in paragraphs as long as before."""
        text = b"".join(path.read_bytes() for path in self._files())
        words = text.split()
        random.Random(0).shuffle(words)
        paragraphs, begin = [], 0
        for paragraph in text.split(b"\n\n"):
            count = len(paragraph.split())
            paragraphs.append(b" ".join(words[begin : begin + count]))
            begin += count
        return self._write("shuffled.txt", b"\n\n".join(filter(None, paragraphs)))

    def edited(self, texts: Iterable[str]) -> Path:
        """Return a file with these texts, each with one more word."""
        return self._write("edited.txt", "\n\n".join(f"{text.strip()} indeed" for text in texts).encode())

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("*.txt"))

    def _write(self, name: str, data: bytes) -> Path:
        path = self._aside / name
        path.write_bytes(data)
        return path
