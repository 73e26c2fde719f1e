"""Commands set up the logs of their process; a test gives those of the test run back."""

import logging

import pytest


@pytest.fixture(autouse=True)
def _logs_as_before():
    log = logging.getLogger("qlstream")
    before = log.handlers[:], log.level, log.propagate
    yield
    log.handlers[:], log.level, log.propagate = before
