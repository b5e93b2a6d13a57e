"""The ``crossent`` command: one function a subcommand, each delegating to a module.

A subcommand imports its module inside its function, so that ``--help`` stays quick. It raises
``DataError`` (exit 1) or ``UsageError`` (exit 2) with one line that names the file and the fix.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from crossent import _terminal

try:
    import rich  # noqa: F401  (the commands draw with it)
    import typer
except ModuleNotFoundError as missing:
    print(
        f"crossent: {missing.name} is not installed: pip install 'crossent[cli]'", file=sys.stderr
    )
    raise SystemExit(_terminal.BAD_USAGE) from None

app = typer.Typer(
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]


def print_version(wanted: bool) -> None:
    """Print the version and stop, where ``--version`` is given."""
    if wanted:
        import crossent

        print(f"crossent {crossent.__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def crossent_command(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=print_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Softmax cross-entropy, exact and fast.

    The loss that classifiers and language models are trained with: minus
    the logarithm of the probability that the model gives to the truth. Its
    gradient is p - y: the probabilities less the truth.

    Begin with [bold]crossent demo[/bold].

    Exit codes: 0 done, 1 bad data, 2 bad usage.
    """
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit(_terminal.BAD_USAGE)


# --- Subcommands, in the order in which --help lists them -----------------------------------------


@app.command()
def demo(
    out: Annotated[
        Path, typer.Option(help="Where the picture goes: a .png, .svg or .pdf file.")
    ] = Path("crossent-demo.png"),
    as_json: AsJson = False,
) -> None:
    """Train a classifier on real handwritten digits and see what it learns.

    Softmax regression on 1,797 images that come with the package. A step
    of the training is

        loss, grad = cross_entropy_and_grad(images @ weight, labels)
        weight -= rate * images.T @ grad

    Prints the loss, perplexity, accuracy and calibration error on images
    held out from training, and the hardest of them.

    Saves a picture: the loss curve, the gradient p - y carried back to the
    pixels (the image that each class learns from), the mistakes, the
    hardest digits.

    Takes a few seconds. The figures are the same every run.
    """
    from crossent.demo_report import demo_command

    demo_command(out, as_json=as_json)


@app.command()
def info(as_json: AsJson = False) -> None:
    """Show versions, instruction set, threads and installed front-ends.

    CROSSENT_ISA=NAME forces one of the instruction sets that are there,
    CROSSENT_NUM_THREADS=N the number of threads. Paste the output into a
    bug report.
    """
    from crossent.info import collect_info, format_info

    facts = collect_info()
    if as_json:
        _terminal.print_json(facts.as_dict())
    else:
        print(format_info(facts))


# --- The entry point ------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; every error is one line on standard error."""
    try:
        with _terminal.quiet_broken_pipe():
            code = app(args=arguments, prog_name="crossent", standalone_mode=False)
        return code if isinstance(code, int) else _terminal.DONE
    except (KeyboardInterrupt, typer.Abort):
        return _terminal.INTERRUPTED
    except Exception as error:
        if _terminal.wants_traceback():
            raise
        code, message = _terminal.describe_error(error)
        print(f"crossent: {message}", file=sys.stderr)
        return code
