"""What runs in the process of the tests leaves it as it was."""

import logging

import pytest


@pytest.fixture
def untouched_loggers():
    """Detectron2's `setup_logger` binds handlers to this test's standard output and stops propagation."""
    from detectron2.utils.logger import setup_logger

    loggers = [logging.getLogger(name) for name in ("detectron2", "fvcore", "ssl_backbones")]
    before = [(logger, logger.handlers[:], logger.propagate, logger.level) for logger in loggers]
    yield
    for logger, handlers, propagate, level in before:
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)
    setup_logger.cache_clear()
