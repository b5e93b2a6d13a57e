"""The ``crossent`` command: one function a subcommand, each delegating to a module.

A subcommand imports its module inside its function, so that ``--help`` stays quick. It raises
``DataError`` (exit 1) or ``UsageError`` (exit 2) with one line that names the file and the fix.
"""

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_origin, get_type_hints

from crossent import options
from crossent.commands import terminal

try:
    import rich  # noqa: F401  (the commands draw with it)
    import typer
    from typer import Option
except ModuleNotFoundError as missing:
    raise SystemExit(terminal.report_error(missing)) from None

app = typer.Typer(
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

# The panels into which `crossent eval --help` sorts its options.
LOSS, FILES = "The loss, as in crossent.cross_entropy", "Files to write"
DEMO = Path("crossent-demo.png")

AsJson = Annotated[bool, Option("--json", help="Print one JSON document instead of text.")]


def print_version(wanted: bool) -> None:
    """Print the version and stop, where ``--version`` is given."""
    if wanted:
        import crossent

        terminal.say(f"crossent {crossent.__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def crossent_command(
    context: typer.Context,
    version: Annotated[
        bool, Option("--version", callback=print_version, is_eager=True, help="Print the version.")
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
        raise typer.Exit(terminal.BAD_USAGE)
    check_environment()


def check_environment() -> None:
    """Raise UsageError where CROSSENT_ISA or CROSSENT_NUM_THREADS cannot be followed."""
    import crossent

    try:
        crossent.isa(), crossent.get_num_threads()
    except ValueError as error:
        raise terminal.UsageError(str(error)) from None


# --- Subcommands, in the order in which --help lists them -----------------------------------------


@app.command()
def demo(
    out: Annotated[Path, Option(help="Where the picture goes: a .png, .svg or .pdf file.")] = DEMO,
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
    from crossent.commands.demo.command import demo_command

    demo_command(out, as_json=as_json)


@app.command()
def explain(
    logits: Annotated[
        str | None,
        Option(help='Rows of logits, "2, 1, .1; .1, 2, 1.9", or a .npy, .csv or .txt file.'),
    ] = None,
    targets: Annotated[
        str | None, Option(help='The class of each row, "1, 0", or rows of shares, or such a file.')
    ] = None,
    row: Annotated[
        int | None,
        Option(help="The row to follow. Without it the first, or the worst of more than 5."),
    ] = None,
    classes: Annotated[
        str | None, Option(help='Names of the classes, "cat, dog, bird", or a .txt file.')
    ] = None,
    out: Annotated[
        Path | None,
        Option(help="Where it goes. Without it crossent-explain.html; text is printed."),
    ] = None,
    no_open: Annotated[bool, Option("--no-open", help="Do not open the page.")] = False,
    text: Annotated[bool, Option("--text", help="Print the walk as text.")] = False,
    latex: Annotated[bool, Option("--latex", help="Print it as LaTeX for a report.")] = False,
    numpy: Annotated[bool, Option("--numpy", help="Print it as a NumPy program.")] = False,
    as_json: AsJson = False,
) -> None:
    """Walk through the derivation with your own numbers.

    From logits to loss and back to the gradient p - y, step by step, every
    symbol a number: by default on a worked example of two rows.

    Writes one HTML page that needs nothing else, and opens it: move the
    logits, choose the target, predict each sign before you look.

        crossent explain
        crossent explain --logits "2, 1, .1; .1, 2, 1.9" --targets "1, 0"
        crossent explain --logits logits.npy --targets labels.npy --row 7

    Of many rows or classes it shows those that matter most, and says so.
    """
    from crossent.commands.explain.command import chosen_form, explain_command

    explain_command(
        logits=logits, targets=targets, classes=classes, row=row, out=out, open_page=not no_open,
        form=chosen_form(text=text, latex=latex, numpy=numpy, json=as_json),
    )  # fmt: skip


@app.command()
def bench(
    shapes: Annotated[
        str | None,
        Option(
            help="Rows x classes, with commas, such as 4096x32000,32x10; a class axis goes after "
            "a slash: 8x21x512x512/1. Without it nine shapes from 32x10 to 1024x262144."
        ),
    ] = None,
    dtypes: Annotated[
        str | None, Option(help="Of float32 (alone without it), bfloat16, float64; or all.")
    ] = None,
    contenders: Annotated[
        str | None,
        Option(
            help="Of crossent, crossent-torch, torch, torch-huge, torch-compiled, "
            "torch-compiled-huge, jax, sklearn, scipy, textbook. Without it all that are installed."
        ),
    ] = None,
    threads: Annotated[
        int | None, Option(help="For each. Without it as many as there are CPUs.")
    ] = None,
    rounds: Annotated[int | None, Option(help="Without it 9, with --quick 3.")] = None,
    quick: Annotated[
        bool, Option("--quick", help="Four small shapes, nobody who compiles: a minute.")
    ] = False,
    plot: Annotated[
        Path | None, Option(help="Save a chart too: a .png, .svg or .pdf file.")
    ] = None,
    markdown: Annotated[
        bool, Option("--markdown", help="Print the README's tables instead.")
    ] = False,
    saved: Annotated[
        Path | None, Option("--from", help="Show a run that --json printed instead of making one.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Time, memory and accuracy beside every other library here.

    The loss alone, and the loss with its gradient in fresh memory, in out=
    and over the logits; peak extra memory; the largest errors against
    extended precision. Beside them, from the same run, what the machine
    needs at least: reading the logits once, scaling them in place, filling
    fresh memory, as many bare exponentials on data in L1.

        crossent bench --quick
        crossent bench --shapes 4096x32000 --dtypes all --plot bench.png
        crossent bench --json > run.json
        crossent bench --from run.json --markdown

    Everyone has a process of its own and gets the same data. They take
    turns, in an order that moves on every round, so that a busy minute of
    the machine falls on all. Whoever is not installed is named, with how
    to install it.

    Leave the machine alone meanwhile. All nine shapes take ten minutes and
    12 GiB or so; where memory is short, arrays are loaded anew each turn.

    The linear form has a program of its own: examples/linear_speed.py.
    """
    from crossent.commands.bench.command import Request, bench_command

    bench_command(
        Request(shapes, dtypes, contenders, threads, rounds, quick),
        saved=saved, plot=plot, as_json=as_json, as_markdown=markdown,
    )  # fmt: skip


def option_of_the_loss(name: str, meaning: str, kind: Any) -> inspect.Parameter:
    """A parameter from which Typer makes the command line's option."""
    shown = (meaning[0].upper() + meaning[1:] + ".").replace("[", r"\[")  # [word] is a style
    option = Option(rich_help_panel=LOSS, help=shown)
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=options.DEFAULTS[name],
        annotation=Annotated[str if get_origin(kind) is Literal else kind, option],
    )


def with_options_of_the_loss(command: Callable[..., None]) -> Callable[..., None]:
    """The command with every option of the loss in place of its ``**loss``, before ``axis``."""
    types = get_type_hints(options.Options)
    of_loss = [
        option_of_the_loss(name, option.meaning, types[name])
        for name, option in options.OPTIONS.items()
    ]
    own = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in inspect.signature(command).parameters.values()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    axis = [parameter.name for parameter in own].index("axis")
    parameters = own[:axis] + of_loss + own[axis:]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return command


@app.command(name="eval")
@with_options_of_the_loss
def evaluate(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[LOGITS... TARGETS]",
            help="Files of logits and of targets: .npy, .npz or .safetensors, in an archive "
            "FILE:NAME, or a pattern in quotes. None: digits that come along.",
            show_default=False,
        ),
    ] = None,
    targets: Annotated[
        list[str] | None,
        Option("--targets", "-t", help="Targets, where there are several files of logits."),
    ] = None,
    logprobs: Annotated[
        bool, Option("--logprobs", help="The files hold log p of the truth, one a row.")
    ] = False,
    compare: Annotated[
        list[str] | None, Option(help="The logits of another model on the same rows.")
    ] = None,
    row_weight: Annotated[
        list[str] | None, Option(help="A weight >= 0, or a mask, one a row.")
    ] = None,
    skip_bad: Annotated[
        bool, Option("--skip-bad", help="Count bad rows and go on, rather than stop.")
    ] = False,
    temperature: Annotated[
        bool, Option("--temperature", help="Find the temperature of least loss: further passes.")
    ] = False,
    bytes: Annotated[
        int | None, Option(help="Bytes of the text encoded, for bits per byte.", min=1)
    ] = None,
    hardest: Annotated[int, Option(help="How many of the hardest rows to name.", min=0)] = 10,
    memory: Annotated[int, Option(help="MiB to hold at most.", min=1)] = 256,
    grad: Annotated[
        Path | None,
        Option(rich_help_panel=FILES, help="Write the gradient: a .npy or .safetensors file."),
    ] = None,
    losses: Annotated[
        Path | None, Option(rich_help_panel=FILES, help="Write the loss of every row: a .npy file.")
    ] = None,
    report: Annotated[
        Path | None, Option(rich_help_panel=FILES, help="Write a page of charts: .html.")
    ] = None,
    weight: Annotated[
        Path | None, Option(rich_help_panel=LOSS, help="Class weights, a file of C numbers.")
    ] = None,
    axis: Annotated[int, Option(rich_help_panel=LOSS, help="The axis of the classes.")] = -1,
    as_json: AsJson = False,
    **loss: Any,
) -> None:
    """Evaluate saved outputs: loss, perplexity, accuracy, calibration, gradient.

    Give a file of logits and one of targets, for example

        crossent eval logits.npy targets.npy
        crossent eval 'logits-*.npy' 'targets-*.npy' --report report.html
        crossent eval outputs.npz --grad grad.npy --temperature

    Files may be far larger than memory: they are read block by block, and
    the figures have the same bits for any block and any number of threads.
    Targets are class indices or distributions. Rows count from 0. Pickles
    are never loaded. Where losses are not reduced, their mean is shown, and
    the gradient is that of each row's own loss.

    What is written appears when it is whole: a run that fails, is stopped
    or is killed leaves files as they were.
    """
    from crossent.commands.eval.command import eval_command

    eval_command(
        files or [], targets or [], are_logprobs=logprobs, report=report, weight=weight,
        memory=memory, as_json=as_json, compare=compare, row_weight=row_weight, skip_bad=skip_bad,
        temperature=temperature, bytes=bytes, hardest=hardest, grad=grad, losses=losses,
        axis=axis, **loss,
    )  # fmt: skip


@app.command()
def info(as_json: AsJson = False) -> None:
    """Show versions, instruction set, threads and installed front-ends.

    CROSSENT_ISA=NAME forces one of the instruction sets that are there,
    CROSSENT_NUM_THREADS=N the number of threads. Paste the output into a
    bug report.
    """
    from crossent.commands.info import collect_info, format_info

    facts = collect_info()
    terminal.say(terminal.json_text(facts) if as_json else format_info(facts))


# --- The entry point ------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; every error is one line on standard error."""
    with terminal.standard_streams(), terminal.interrupts() as interrupted:
        try:
            with terminal.quiet_broken_pipe():
                code = app(args=arguments, prog_name="crossent", standalone_mode=False)
            if interrupted:
                return terminal.INTERRUPTED
            return code if isinstance(code, int) else terminal.DONE
        except (KeyboardInterrupt, typer.Abort):
            return terminal.INTERRUPTED
        except Exception as error:
            if interrupted:
                return terminal.INTERRUPTED
            if terminal.wants_traceback():
                raise
            return terminal.report_error(error)
