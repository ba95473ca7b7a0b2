"""What a check found, and how it is shown: one line, with the mend where something is wrong."""

from __future__ import annotations

from dataclasses import dataclass

_WIDTH = 26


@dataclass(frozen=True)
class Finding:
    """One line of `score doctor`. `ok` is None where nothing could be checked."""

    name: str
    ok: bool | None
    says: str
    mend: str = ""

    @property
    def words(self) -> str:
        """What is wrong and how to mend it."""
        return f"{self.says}; {self.mend}" if self.mend else self.says

    def line(self) -> str:
        status = {True: "ok", False: "FAIL", None: "skip"}[self.ok]
        return f"{status:4}  {self.name:<{_WIDTH}}  {' '.join(self.words.split())}"


def good(name: str, says: str) -> Finding:
    return Finding(name, True, says)


def bad(name: str, says: str, mend: str = "") -> Finding:
    return Finding(name, False, says, mend)


def unchecked(name: str, says: str) -> Finding:
    return Finding(name, None, says)
