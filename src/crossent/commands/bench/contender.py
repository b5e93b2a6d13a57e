"""What a contender is: one way to compute a case, in a process of its own."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any, ClassVar, NamedTuple

import crossent
from crossent.commands.bench.cases import DTYPES, FRESH, LOSS, Array, Case

Calls = dict[str, Callable[[], Any]]


class Rows(NamedTuple):
    """Losses of rows, and the gradient of their sum in the logits' type."""

    losses: Array
    losses_dtype: str  # by name: bfloat16 arrives here as float32
    grad: Array  # bfloat16 as float32, or as it is stored


class Contender(ABC):
    """One way to compute a case. A worker process holds one and calls, in this order:

    start, then for each case load and, many times, one of the calls that it gave and restore; rows
    at any time after start. What load sets on self is deleted when the case is done.
    """

    name: ClassVar[str]  # on the command line
    title: ClassVar[str]  # in tables
    ours: ClassVar[bool] = False
    modules: ClassVar[tuple[str, ...]] = ()  # what it imports
    packages: ClassVar[tuple[str, ...]] = ()  # what pip calls them
    environment: ClassVar[Mapping[str, str]] = {}  # of its process
    dtypes: ClassVar[tuple[str, ...]] = DTYPES
    tasks: ClassVar[tuple[str, ...]] = (LOSS, FRESH)
    any_axis: ClassVar[bool] = True  # False: classes must be last
    compiles: ClassVar[bool] = False  # takes seconds before its first result
    held: ClassVar[int] = 1  # arrays of the logits' size between calls
    most_held: ClassVar[int] = 4  # the same within a call

    def start(self, threads: int) -> int:
        """The number of threads that it will use, at best so many. Imports what is needed."""
        return 1

    def versions(self) -> dict[str, str]:
        """Of the packages that it rests on."""
        own = {"crossent": crossent.__version__, "isa": crossent.isa()} if self.ours else {}
        return own | {package: version(package) for package in (*self.packages, "numpy")}

    @abstractmethod
    def load(self, case: Case, arrays: Mapping[str, Array]) -> Calls:
        """The functions that are timed, by task. Each gives the loss, or a tuple that begins with
        it; None where there is no loss. They compute on copies of the arrays, in the contender's
        own form and in memory of its own."""

    def restore(self, task: str) -> None:  # noqa: B027 (there may be nothing to do)
        """Bring back what a call of the task overwrote or left behind. Called after every call."""

    @abstractmethod
    def rows(self, logits: Array, targets: Array, dtype: str) -> Rows:
        """Losses and gradient of (N, C) logits, as `bench.cases` stores them."""

    @classmethod
    def why_not(cls, case: Case) -> str | None:
        """Why it cannot compute a case, or None."""
        if case.dtype not in cls.dtypes:
            return f"has no {case.dtype}"
        if not cls.any_axis and not case.classes_last:
            return "needs the classes on the last axis"
        return None
