"""Who takes part, in the order of the tables. A new contender is a class and a word here."""

from crossent.commands.bench.contender import Contender
from crossent.commands.bench.contenders import jax, numpy, torch
from crossent.commands.bench.limits import MachineLimits

OURS = (numpy.Crossent, torch.CrossentTorch)
PYTORCH = (torch.TorchEager, torch.TorchEagerHuge, torch.TorchCompiled, torch.TorchCompiledHuge)
OTHERS = (jax.Jax, numpy.ScikitLearn, numpy.SciPy, numpy.Textbook)

CONTENDERS: dict[str, type[Contender]] = {c.name: c for c in (*OURS, *PYTORCH, *OTHERS)}
WORKERS = CONTENDERS | {MachineLimits.name: MachineLimits}
