"""What an evaluation refuses: files, rows, options."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from crossent import options
from crossent._safe_file import BadFile, BadOption

__all__ = ["BadFile", "BadOption", "BadRow", "Source", "check_held", "damaged", "whole_number"]


class Source(StrEnum):
    """What a bad row is found in, as messages call it."""

    LOGITS = "logits"
    TARGETS = "targets"
    ROW_WEIGHTS = "row weights"
    OTHER_LOGITS = "other logits"
    LOGPROBS = "log-probabilities"


class BadRow(ValueError):
    """A row that cannot be evaluated: its label is no class, or its loss is nan."""

    def __init__(self, row: int, reason: str, source: Source, message: str | None = None) -> None:
        super().__init__(message or f"row {row:,} of the {source} {reason}")
        self.row, self.reason, self.source = row, reason, source

    def __reduce__(self) -> tuple[type[BadRow], tuple[int, str, Source, str]]:
        return BadRow, (self.row, self.reason, self.source, str(self))  # crosses processes whole


def whole_number(name: str, value: Any, least: int) -> int:
    """An integer that is not less than ``least``."""
    number = options.integer(name, value)
    if number < least:
        raise BadOption(f"{name} must be at least {least}, not {options.shown(value)}")
    return number


def check_held(name: str, promised: int, held: int, said: str) -> None:
    """Raises BadFile where a header promises another number of bytes than there are."""
    if promised != held:
        verb = "is truncated" if held < promised else "has bytes that no header explains"
        raise damaged(name, f"{verb}: its header promises {said} and {held:,} are there")


def damaged(name: str, what: str = "its header cannot be read") -> BadFile:
    """The error for a file that cannot be what was saved."""
    return BadFile(f"{name}: {what}; save or copy it again")
