"""A piece of a file → the texts in it: one of plain text, one a line of JSON Lines."""

from __future__ import annotations

from typing import Any

from hpctrain.errors import DataError, raise_all
from hpctrain.train.sources import Document, is_json_lines, show

DEFAULT_JSON_FIELD = "text"
MAX_BROKEN_LINES = 20


class TextReader:
    """Reads documents' texts and gathers what is wrong with lines of JSON."""

    def __init__(self, json_field: str) -> None:
        import msgspec

        # Compiled to the one field that counts: the others are skipped, not built.
        line = msgspec.defstruct("Line", [("text", str)], rename={"text": json_field})
        self._decoder: Any = msgspec.json.Decoder(line)
        self._broken: list[str] = []

    def read(self, document: Document) -> list[bytes]:
        """Return the texts of one piece.

        Raises:
            DataError: now the first 20 broken lines are known; :meth:`check` has fewer.
        """
        with open(document.file.path, "rb") as stream:
            stream.seek(document.start)
            content = stream.read(document.size_bytes)
        if not is_json_lines(document.file.path):
            return [content]
        return self._read_lines(document, content)

    def check(self) -> None:
        """Return if no line was broken.

        Raises:
            DataError: naming each broken line.
        """
        raise_all(DataError, self._broken)

    def _read_lines(self, document: Document, content: bytes) -> list[bytes]:
        import msgspec

        texts = []
        for number, line in enumerate(content.split(b"\n")):
            if not line.strip():
                continue
            try:
                texts.append(self._decoder.decode(line).text.encode())
            except (msgspec.DecodeError, UnicodeError) as problem:
                self._broken.append(_describe(document, number, problem))
                if len(self._broken) == MAX_BROKEN_LINES:
                    self._broken.append(
                        f"{show(document.file.path)}: stopped after {MAX_BROKEN_LINES} broken "
                        "lines; there may be more."
                    )
                    self.check()
        return texts


def _describe(document: Document, number: int, problem: Exception) -> str:
    """Say where a line is broken; lines before the piece are counted only now."""
    before = 0
    with open(document.file.path, "rb") as stream:
        left = document.start
        while left and (block := stream.read(min(left, 1 << 20))):
            before += block.count(b"\n")
            left -= len(block)
    reason = str(problem).replace("`", "'")
    return (
        f"{show(document.file.path)}:{before + number + 1}: broken line: {reason}; expected a "
        "JSON object with the text in a string. Mend the line, or name its field: --json-field."
    )
