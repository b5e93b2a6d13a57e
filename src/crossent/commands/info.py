"""What this installation is made of: versions, the instruction set in use, threads, front-ends."""

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import crossent

FRAMEWORKS = ("numpy", "torch")  # that have a front-end
SETTINGS = ("CROSSENT_ISA", "CROSSENT_NUM_THREADS")


def collect_info() -> dict[str, Any]:
    """The facts about this installation. Frameworks are looked up, never imported."""
    return {
        "crossent": crossent.__version__,
        "isa": crossent.isa(),
        "available_isas": crossent.available_isas(),
        "threads": crossent.get_num_threads(),
        "cpus": usable_cpus(),
        "settings": {name: os.environ[name] for name in SETTINGS if os.environ.get(name)},
        "front_ends": {framework: installed_version(framework) for framework in FRAMEWORKS},
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": f"{platform.system()} {platform.machine()}",
    }


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


def format_info(facts: dict[str, Any]) -> str:
    """The facts as lines of text: name, value, and how to change it."""
    others = ", ".join(isa for isa in facts["available_isas"] if isa != facts["isa"])
    rows = {
        "crossent": facts["crossent"],
        "instructions": facts["isa"] + (f" (also here: {others})" if others else ""),
        "threads": f"{facts['threads']} (this process may use {facts['cpus']} CPUs)",
        **{
            framework: found or f"not installed: pip install {framework}"
            for framework, found in facts["front_ends"].items()
        },
        "python": f"{facts['python']} ({facts['executable']})",
        "platform": facts["platform"],
        **{name: f"{value} (from the environment)" for name, value in facts["settings"].items()},
    }
    width = max(map(len, rows))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows.items())
