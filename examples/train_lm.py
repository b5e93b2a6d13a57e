"""Trains a small language model twice: with PyTorch's loss, then with ours.

The text is the standard library's documentation topics, which every Python has; tokens are its
words, its spaces and its punctuation. All runs start from the same weights and see the same
batches, so their curves agree; what differs is the time and the memory of the loss.

    python examples/train_lm.py            # about a minute on two idle cores
    python examples/train_lm.py --steps 10
"""

from __future__ import annotations

import argparse
import re
import resource
import subprocess
import sys
import time
from collections import Counter
from pydoc_data.topics import topics

import torch

import crossent.torch

VOCABULARY, CONTEXT, BATCH, WIDTH, SPAN = 16_384, 128, 16, 128, 8


def read_tokens() -> torch.Tensor:
    """The text as indices of its most frequent words, spaces and punctuation kept apart."""
    words = re.findall(r"\w+|\s+|[^\w\s]", "\n".join(topics.values()))
    known = [word for word, _ in Counter(words).most_common(VOCABULARY - 1)]
    index = {word: k for k, word in enumerate(known)}
    return torch.tensor([index.get(word, VOCABULARY - 1) for word in words])


class Model(torch.nn.Module):
    """Embeddings, two causal convolutions, a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(VOCABULARY, WIDTH)
        self.layers = torch.nn.ModuleList(torch.nn.Conv1d(WIDTH, WIDTH, SPAN) for _ in range(2))
        self.head = torch.nn.Linear(WIDTH, VOCABULARY)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        hidden = self.embedding(tokens).transpose(1, 2)
        for layer in self.layers:  # what is seen at t ends at t
            hidden = hidden + torch.nn.functional.gelu(layer(padded(hidden)))
        return self.head(hidden.transpose(1, 2)).flatten(0, 1)


def padded(hidden: torch.Tensor) -> torch.Tensor:
    """Zeros before the first position."""
    return torch.nn.functional.pad(hidden, (SPAN - 1, 0))


LOSSES = {
    "torch": torch.nn.functional.cross_entropy,
    "crossent": crossent.torch.cross_entropy,
    "crossent in place": lambda logits, targets: crossent.torch.cross_entropy(
        logits, targets, inplace_backward=True
    ),
}


def train(name: str, steps: int) -> None:
    """One run: a line for every tenth step, then the figures of the whole."""
    tokens = read_tokens()
    torch.manual_seed(0)
    model, cross_entropy = Model(), LOSSES[name]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    begin, in_loss = time.perf_counter(), 0.0
    for step in range(steps):
        starts = torch.randint(len(tokens) - CONTEXT - 1, (BATCH,))
        batch = torch.stack([tokens[s : s + CONTEXT + 1] for s in starts.tolist()])
        logits = model(batch[:, :-1])
        targets = batch[:, 1:].flatten()
        started = time.perf_counter()
        loss = cross_entropy(logits, targets)
        middle = time.perf_counter()
        backward_of_loss = _time_of_backward(logits)
        loss.backward()
        in_loss += middle - started + backward_of_loss()
        del logits
        optimizer.step()
        optimizer.zero_grad()
        if step % 10 == 0 or step == steps - 1:
            print(f"step {step} {loss.item():.6f}", flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"total {time.perf_counter() - begin:.2f} {in_loss:.3f} {peak:.3f}")


def _time_of_backward(logits: torch.Tensor):
    """Call before backward; the result, called after it, gives the seconds the loss's part took."""
    started, reached = time.perf_counter(), []
    logits.register_hook(lambda _: reached.append(time.perf_counter()))
    return lambda: reached[0] - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=40, help="of each run")
    parser.add_argument("--loss", choices=LOSSES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.loss:
        train(options.loss, options.steps)
        return
    results = {}
    for name in LOSSES:  # a process each, so that each has its own peak of memory
        command = [sys.executable, __file__, "--steps", str(options.steps), "--loss", name]
        print(f"training with {name} ...", flush=True)
        lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        results[name] = [line.split()[1:] for line in lines.splitlines()]
    names = list(results)
    print(f"\n{'step':>6}" + "".join(f"{name:>20}" for name in names))
    for lines in zip(*(results[name][:-1] for name in names), strict=True):
        print(f"{lines[0][0]:>6}" + "".join(f"{float(line[1]):>20.4f}" for line in lines))
    print(f"\n{'':>20}{'all, s':>10}{'loss, s':>10}{'peak, GiB':>12}")
    for name in names:
        seconds, in_loss, peak = map(float, results[name][-1])
        print(f"{name:>20}{seconds:>10.1f}{in_loss:>10.2f}{peak:>12.2f}")


if __name__ == "__main__":
    main()
