"""Fixtures of several test files."""

import pytest
from cases import using_isa

import crossent


@pytest.fixture(params=crossent.available_isas())
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
