"""How asking a host went, as the launching machine saw it. Pure."""

from __future__ import annotations

from dataclasses import dataclass

KEPT_WORDS = 4000


@dataclass(frozen=True, slots=True, kw_only=True)
class Contact:
    """One host's answer, or the lack of one.

    Args:
        returncode: of ssh, or of Python where the host is this machine; 124 where time ran out.
        words: what came on stderr, else on stdout: its end.
        noise: what the login shell printed in front of the answer.
        began_s: when it was asked, by this machine's clock (Unix time); `ended_s` likewise.
        spent_s: time from Python's start there to its answer; None without an answer.
    """

    returncode: int = 0
    words: str = ""
    noise: str = ""
    began_s: float = 0.0
    ended_s: float = 0.0
    spent_s: float | None = None

    @property
    def login_s(self) -> float | None:
        """Time that ssh, the login shell and starting Python took."""
        return None if self.spent_s is None else self.ended_s - self.began_s - self.spent_s

    @property
    def last_words(self) -> str:
        """The last line that is not blank."""
        lines = [line.strip() for line in self.words.splitlines() if line.strip()]
        return lines[-1] if lines else f"exit code {self.returncode}, no output"
