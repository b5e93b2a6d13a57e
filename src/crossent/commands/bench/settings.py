"""What a run was made on and with: enough to believe it, or to find out why another differs."""

import os
import platform
import shlex
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from crossent import __version__, isa
from crossent.commands.bench.measure import proc_bytes, proc_value, system_text
from crossent.commands.bench.process import HUGE_PAGES_SETTING, THREAD_SETTINGS
from crossent.commands.info import usable_cpus

# Environment variables that change how fast somebody is.
PREFIXES = (
    "CROSSENT_", "OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "BLIS_", "ATEN_", "TORCH", "JAX_",
    "XLA_", "THP_", "MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD", "NPY_", "PYTHONMALLOC",
)  # fmt: skip


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
    return proc_value("cpuinfo", "model name") or platform.processor() or platform.machine()


def caches() -> dict[str, str]:
    """Sizes of the data caches of the first processor: {"L1": "48K", ...}, where Linux says."""
    sizes = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        kind, level, size = (
            system_text(f"{index}/{part}").strip() for part in ("type", "level", "size")
        )
        if size and kind != "Instruction":
            sizes[f"L{level}"] = size
    return sizes


def huge_pages() -> str | None:
    """When the kernel gives transparent huge pages: always, madvise (when asked) or never."""
    choice = system_text("/sys/kernel/mm/transparent_hugepage/enabled")
    return choice.partition("[")[2].partition("]")[0] or None


def load_average() -> float | None:
    """How many processes have been at work over the last minute, where the system says."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The library, what was asked for, the machine, and how much else was going on.

    Whatever is not given is what it is here and now.
    """

    crossent: str = __version__
    isa: str = field(default_factory=isa)
    threads: int
    rounds: int
    processor: str = field(default_factory=processor)
    cpus: int = field(default_factory=usable_cpus)
    caches: dict[str, str] = field(default_factory=caches)
    memory_bytes: int | None = field(default_factory=lambda: proc_bytes("meminfo", "MemTotal"))
    system: str = f"{platform.system()} {platform.release()} {platform.machine()}"
    huge_pages: str | None = field(default_factory=huge_pages)
    python: str = platform.python_version()
    environment: dict[str, str] = field(default_factory=environment)
    load_average: float | None = field(default_factory=load_average)
    date: str = field(default_factory=lambda: time.strftime("%Y-%m-%d"))
    command: str = field(default_factory=lambda: shlex.join(["crossent", *sys.argv[1:]]))
