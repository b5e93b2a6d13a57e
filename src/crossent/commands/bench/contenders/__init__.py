"""Who takes part, in the order of the tables. A new contender is a class and a line here."""

from crossent.commands.bench.contender import Contender
from crossent.commands.bench.contenders.jax import Jax
from crossent.commands.bench.contenders.numpy import ScikitLearn, SciPy, Textbook
from crossent.commands.bench.contenders.ours import Crossent
from crossent.commands.bench.contenders.ours_torch import CrossentTorch
from crossent.commands.bench.contenders.torch import (
    TorchCompiled,
    TorchCompiledHuge,
    TorchEager,
    TorchEagerHuge,
)
from crossent.commands.bench.limits import MachineLimits

CONTENDERS: dict[str, type[Contender]] = {
    contender.name: contender
    for contender in (
        Crossent,
        CrossentTorch,
        TorchEager,
        TorchEagerHuge,
        TorchCompiled,
        TorchCompiledHuge,
        Jax,
        ScikitLearn,
        SciPy,
        Textbook,
    )
}
WORKERS = CONTENDERS | {MachineLimits.name: MachineLimits}
