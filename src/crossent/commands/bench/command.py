"""The ``crossent bench`` command: makes a plan of what was asked for, runs it, shows the report."""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossent.commands.bench.cases import DTYPES, QUICK_SHAPES, SHAPES, Case, parse_shape
from crossent.commands.bench.contenders import CONTENDERS
from crossent.commands.bench.report import Report
from crossent.commands.bench.run import run_bench
from crossent.commands.info import usable_cpus
from crossent.commands.terminal import (
    DataError,
    UsageError,
    check_picture_path,
    json_text,
    print_json,
    printable,
    save_picture,
    say,
)

ALL = "all"
ROUNDS, QUICK_ROUNDS = 9, 3
MOST_BYTES = 64 << 20  # of a saved run: a thousand rounds of everything are half of that


@dataclass(frozen=True)
class Request:
    """What the command line asks to measure; None stands for the default."""

    shapes: str | None = None
    dtypes: str | None = None
    contenders: str | None = None
    threads: int | None = None
    rounds: int | None = None
    quick: bool = False


def bench_command(
    request: Request,
    *,
    saved: Path | None = None,
    plot: Path | None = None,
    as_json: bool = False,
    as_markdown: bool = False,
) -> None:
    """Measure, or read what was measured, and show it: one of table, JSON and Markdown."""
    if as_json and as_markdown:
        raise UsageError("--json and --markdown: choose one; --from shows a saved run as the other")
    if saved is not None and request != Request():
        raise UsageError("--from shows what was measured then: leave out what chooses a new run")
    if plot is not None:
        check_picture_path(plot, "--plot", [] if saved is None else [saved])
        from crossent.commands.bench.chart import chart  # now, as matplotlib may be missing
    report = measure(request) if saved is None else read_report(saved)
    shown = with_printable_words(report)
    if plot is not None:
        save_picture(chart(shown), plot)
    if as_json:
        print_json(report.as_dict())
    elif as_markdown:
        from crossent.commands.bench.markdown import markdown

        say(markdown(shown), end="")
    else:
        from crossent.commands.bench.table import print_report

        print_report(shown)


def with_printable_words(report: Report) -> Report:
    """The report without words that would steer a terminal: of files, of the environment."""

    def made_printable(found: Any) -> Any:
        if isinstance(found, dict):
            return {made_printable(name): made_printable(value) for name, value in found.items()}
        if isinstance(found, list):
            return [made_printable(value) for value in found]
        return printable(" ".join(found.split())) if isinstance(found, str) else found

    return Report.from_dict(made_printable(json.loads(json_text(report.as_dict()))))


def read_report(path: Path) -> Report:
    """A report that ``--json`` wrote."""
    try:
        with path.open("rb") as file:
            found = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file; is the path right?") from None
    try:
        if len(found) > MOST_BYTES:
            raise ValueError(f"longer than {MOST_BYTES >> 20} MiB")
        return Report.from_dict(json.loads(found.decode()))
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path}: not a run that this version saved ({str(error)[:200]}); make one: "
            "crossent bench --json > run.json"  # not over a file that holds something else
        ) from None


def measure(request: Request) -> Report:
    """What was asked for, measured; or UsageError that says what there is to choose from."""
    threads = usable_cpus() if request.threads is None else request.threads
    if not 1 <= threads <= usable_cpus():
        raise UsageError(
            f"--threads {request.threads}: give 1 to {usable_cpus()}, the CPUs that this process "
            "may use"
        )
    usual_rounds = QUICK_ROUNDS if request.quick else ROUNDS
    rounds = usual_rounds if request.rounds is None else request.rounds
    if rounds < 1:
        raise UsageError(f"--rounds {rounds}: at least 1 is needed")
    usual_shapes = QUICK_SHAPES if request.quick else SHAPES
    usual = [c.name for c in CONTENDERS.values() if not (request.quick and c.compiles)]
    shapes = chosen("--shapes", request.shapes, usual_shapes, SHAPES)
    dtypes = chosen("--dtypes", request.dtypes, DTYPES[:1], DTYPES)
    names = chosen("--contenders", request.contenders, usual, CONTENDERS)
    check_known("--dtypes", dtypes, DTYPES)
    check_known("--contenders", names, CONTENDERS)
    try:
        parsed = dict.fromkeys(parse_shape(shape) for shape in shapes)
        cases = [Case(shape, dtype, axis) for dtype in dtypes for shape, axis in parsed]
    except ValueError as error:
        raise UsageError(f"--shapes: {error}") from None
    return run_bench(cases, [CONTENDERS[name] for name in names], threads, rounds)


def chosen(
    option: str, text: str | None, usual: Sequence[str], everything: Collection[str]
) -> list[str]:
    """The words of a list with commas, each once, in the order given."""
    if text is None:
        return list(usual)
    if text == ALL:
        return list(everything)
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise UsageError(f"{option}: an empty list; leave it out for the default")
    return list(dict.fromkeys(words))


def check_known(option: str, words: list[str], names: Collection[str]) -> None:
    """Raise UsageError where a word is none of the names."""
    for word in words:
        if word not in names:
            raise UsageError(f"{option}: {word!r} is none of {', '.join(names)}")
