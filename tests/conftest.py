"""Fixtures of several test files; and which files are skipped where an extra is not installed."""

import gc
import os

import pytest
from cases import ISAS, using_isa
from extras import missing_extra

import crossent

# Idle threads of PyTorch's sleep; by default they spin, which is most of what its tests would cost.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


class File(pytest.Module):
    """A test file. Where what it imports is not installed it is skipped by name, save in CI."""

    def collect(self):
        try:
            return super().collect()
        except (self.CollectError, SystemExit) as error:
            if (name := missing_extra(error)) is None:
                raise
            pytest.skip(f"{name} is not installed", allow_module_level=True)


def pytest_pycollect_makemodule(module_path, parent):
    return File.from_parent(parent, path=module_path)


@pytest.fixture(scope="module", autouse=True)
def freeze_what_is_there():
    """Python's collections do not search again what imports and other files left, PyTorch above all."""
    gc.collect()
    gc.freeze()


@pytest.fixture(params=ISAS)
def isa(request):
    """Each instruction set that this machine has, in use while the test runs."""
    with using_isa(request.param):
        yield request.param


@pytest.fixture
def set_num_threads():
    """crossent.set_num_threads, undone afterwards."""
    before = crossent.get_num_threads()
    yield crossent.set_num_threads
    crossent.set_num_threads(before)
