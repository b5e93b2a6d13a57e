"""What a contender is: one way to compute a case, in a process of its own."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib.metadata import version
from typing import ClassVar

import crossent
from crossent.commands.bench.arrays import Array
from crossent.commands.bench.cases import DTYPES, Case
from crossent.commands.bench.measure import Call
from crossent.commands.info import installed_version

Calls = dict[str, Call]


class Contender(ABC):
    """One way to compute a case. A worker process holds one and calls, in this order:

    start, then for each case load and, many times, the calls that it gave; rows at any time after
    start. Arrays are as `bench.cases` stores them.
    """

    name: ClassVar[str]  # on the command line
    title: ClassVar[str]  # in tables
    ours: ClassVar[bool] = False
    packages: ClassVar[tuple[str, ...]] = ()  # what it rests on beside NumPy, as pip calls them
    environment: ClassVar[Mapping[str, str]] = {}  # of its process
    dtypes: ClassVar[tuple[str, ...]] = DTYPES
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
        """What is timed, by task. Each function gives the loss, or a tuple that begins with it;
        None where there is no loss. They compute on copies of the arrays, in the contender's own
        form and in memory of its own, which is let go with them."""

    @abstractmethod
    def rows(self, logits: Array, targets: Array) -> tuple[Array, Array]:
        """Losses (N,), and the gradient of their sum, for (N, C) logits."""

    @classmethod
    def is_installed(cls) -> bool:
        """Whether all packages that it needs are there; none is imported."""
        return all(installed_version(package) for package in cls.packages)

    @classmethod
    def why_not(cls, case: Case) -> str | None:
        """Why it cannot compute a case, or None."""
        if case.dtype not in cls.dtypes:
            return f"has no {case.dtype}"
        if not cls.any_axis and not case.classes_last:
            return "needs the classes on the last axis"
        return None
