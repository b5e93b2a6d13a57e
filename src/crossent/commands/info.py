"""What this installation is made of: versions, the instruction set in use, threads, front-ends."""

import os
import platform
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

import crossent

FRAMEWORKS = ("torch", "jax")  # numpy is always there
SETTINGS = ("CROSSENT_ISA", "CROSSENT_NUM_THREADS")


@dataclass(frozen=True)
class Info:
    """The facts that ``crossent info`` prints."""

    crossent: str
    isa: str
    available_isas: tuple[str, ...]
    threads: int
    cpus: int  # that this process may use
    settings: dict[str, str]  # the environment variables that are set
    front_ends: dict[str, str | None]  # the framework's version, None where it is not installed
    python: str
    executable: str
    platform: str

    def as_dict(self) -> dict[str, Any]:
        """The facts under their names, for ``--json``."""
        return asdict(self)


def collect_info() -> Info:
    """The facts about this installation. Frameworks are looked up, never imported."""
    front_ends: dict[str, str | None] = {"numpy": np.__version__}
    front_ends |= {framework: installed_version(framework) for framework in FRAMEWORKS}
    return Info(
        crossent=crossent.__version__,
        isa=crossent.isa(),
        available_isas=tuple(crossent.available_isas()),
        threads=crossent.get_num_threads(),
        cpus=usable_cpus(),
        settings={name: os.environ[name] for name in SETTINGS if name in os.environ},
        front_ends=front_ends,
        python=platform.python_version(),
        executable=sys.executable,
        platform=f"{platform.system()} {platform.machine()}",
    )


def installed_version(distribution: str) -> str | None:
    """The version of an installed distribution, or None."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def usable_cpus() -> int:
    """The number of CPUs that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def format_info(info: Info) -> str:
    """The facts as lines of text: name, value, and how to change it."""
    others = [isa for isa in info.available_isas if isa != info.isa]
    rows = [
        ("crossent", info.crossent),
        ("instructions", f"{info.isa}" + (f" (also here: {', '.join(others)})" if others else "")),
        ("threads", f"{info.threads} (this process may use {info.cpus} CPUs)"),
        *(
            (framework, framework_line(framework, found))
            for framework, found in info.front_ends.items()
        ),
        ("python", f"{info.python} ({info.executable})"),
        ("platform", info.platform),
        *((name, f"{value} (from the environment)") for name, value in info.settings.items()),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def framework_line(framework: str, found: str | None) -> str:
    """A framework's version, or how to install it."""
    return found if found is not None else f"not installed: pip install {framework}"
