"""What a run was made on and with: enough to believe it, or to find out why another differs."""

import os
import platform
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import crossent
from crossent.commands.bench.process import HUGE_PAGES_SETTING, THREAD_SETTINGS
from crossent.commands.info import usable_cpus

# Environment variables that change how fast somebody is.
PREFIXES = (
    "CROSSENT_", "OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "BLIS_", "ATEN_", "TORCH", "JAX_",
    "XLA_", "THP_", "MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD", "NPY_", "PYTHONMALLOC",
)  # fmt: skip


def collect_settings(threads: int, rounds: int) -> dict[str, Any]:
    """The machine, the library, the environment and how much else was going on."""
    return {
        "crossent": crossent.__version__,
        "isa": crossent.isa(),
        "threads": threads,
        "rounds": rounds,
        "processor": processor(),
        "cpus": usable_cpus(),
        "caches": caches(),
        "memory_bytes": memory("MemTotal"),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "huge_pages": huge_pages(),
        "python": platform.python_version(),
        "environment": environment(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "date": time.strftime("%Y-%m-%d"),
        "command": command(),
    }


def command() -> str:
    """The command line that makes this run."""
    return shlex.join(["crossent", *sys.argv[1:]])


def environment() -> dict[str, str]:
    """The variables that matter and are set, without those that the bench sets itself."""
    ours = {*THREAD_SETTINGS, HUGE_PAGES_SETTING}
    return {
        name: value
        for name, value in sorted(os.environ.items())
        if name.startswith(PREFIXES) and name not in ours
    }


def processor() -> str:
    """The processor's name, as the system has it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def caches() -> dict[str, str]:
    """Sizes of the data caches of the first processor: {"L1": "48K", ...}, where Linux says."""
    sizes = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            kind, level, size = (
                (index / part).read_text().strip() for part in ("type", "level", "size")
            )
        except OSError:
            continue
        if kind != "Instruction":
            sizes[f"L{level}"] = size
    return sizes


def memory(field: str) -> int | None:
    """Bytes that /proc/meminfo gives: MemTotal, MemAvailable; None where there is no such file."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            name, _, rest = line.partition(":")
            if name == field:
                return int(rest.split()[0]) * 1024
    except OSError:
        pass
    return None


def huge_pages() -> str | None:
    """When the kernel gives transparent huge pages: always, madvise (when asked) or never."""
    try:
        text = Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text()
    except OSError:
        return None
    return text.partition("[")[2].partition("]")[0] or None
