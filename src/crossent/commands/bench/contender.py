"""What a contender is: one way to compute a case, in a process of its own."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any, ClassVar, NamedTuple

from numpy.typing import NDArray

from crossent.commands.bench.cases import DTYPES, FRESH, LOGITS, LOSS, Case

Array = NDArray[Any]


class Rows(NamedTuple):
    """Losses of rows, and the gradient of their sum, in the types that a contender gives."""

    losses: Array
    losses_dtype: str  # by name: bfloat16 arrives here as float32
    grad: Array
    grad_dtype: str


class Contender(ABC):
    """One way to compute a case. A worker process holds one and calls, in this order:

    start, then for each case load and (call, restore) many times; rows at any time after start.
    What load sets on self is deleted when the case is done.
    """

    name: ClassVar[str]  # on the command line
    title: ClassVar[str]  # in tables
    ours: ClassVar[bool] = False
    kind: ClassVar[str] = LOGITS  # of the cases that it can compute
    modules: ClassVar[tuple[str, ...]] = ()  # what it imports
    packages: ClassVar[tuple[str, ...]] = ()  # what pip calls them
    environment: ClassVar[Mapping[str, str]] = {}  # of its process
    dtypes: ClassVar[tuple[str, ...]] = DTYPES
    tasks: ClassVar[tuple[str, ...]] = (LOSS, FRESH)
    any_axis: ClassVar[bool] = True  # False: classes must be last
    compiles: ClassVar[bool] = False  # takes seconds before its first result
    held: ClassVar[int] = 1  # arrays of the logits' size between calls
    most_held: ClassVar[int] = 4  # the same within a call

    def start(self, threads: int) -> None:  # noqa: B027 (there may be nothing to do)
        """Import what is needed and use this many threads."""

    def threads(self) -> int:
        """The number of threads that it will use."""
        return 1

    def versions(self) -> dict[str, str]:
        """Of the packages that it rests on."""
        return {package: version(package) for package in (*self.packages, "numpy")}

    @abstractmethod
    def load(self, case: Case, arrays: Mapping[str, Array]) -> None:
        """Take copies of the arrays, in its own form and in memory of its own."""

    @abstractmethod
    def call(self, task: str) -> Callable[[], Any]:
        """The function that is timed; it gives the loss, or a tuple that begins with it."""

    def restore(self, task: str) -> None:  # noqa: B027
        """Bring back what a call of the task overwrote or left behind. Called after every call."""

    @abstractmethod
    def rows(self, logits: Array, targets: Array, dtype: str) -> Rows:
        """Losses and gradient of (N, C) logits, as `bench.data` stores them."""

    @classmethod
    def why_not(cls, case: Case) -> str | None:
        """Why it cannot compute a case, or None."""
        if case.kind != cls.kind:
            return f"does not compute {case.kind} cases"
        if case.dtype not in cls.dtypes:
            return f"has no {case.dtype}"
        if not cls.any_axis and case.axis % len(case.shape) != len(case.shape) - 1:
            return "needs the classes on the last axis"
        return None
