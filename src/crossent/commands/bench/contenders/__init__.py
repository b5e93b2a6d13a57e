"""Who takes part, in the order of the tables. A new contender is a class and a line here."""

from crossent.commands.bench.contender import Contender
from crossent.commands.bench.contenders import jax, numpy, torch
from crossent.commands.bench.limits import MachineLimits

EVERYONE: tuple[type[Contender], ...] = (
    numpy.Crossent,
    torch.CrossentTorch,
    torch.TorchEager,
    torch.TorchEagerHuge,
    torch.TorchCompiled,
    torch.TorchCompiledHuge,
    jax.Jax,
    numpy.ScikitLearn,
    numpy.SciPy,
    numpy.Textbook,
)
CONTENDERS = {contender.name: contender for contender in EVERYONE}
WORKERS = CONTENDERS | {MachineLimits.name: MachineLimits}
