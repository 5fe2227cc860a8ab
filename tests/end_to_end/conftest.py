"""What runs in the process of the tests leaves it as it was."""

import logging

import pytest
from browsing import DESK, open_browser, run_scripts, show
from small_report import small_report


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


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    browser = open_browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.quit()


@pytest.fixture(scope="session")
def report_page(tmp_path_factory):
    """The file of a report with names that are scripts."""
    from ssl_backbones.report.page.html_page import format_page

    folder = tmp_path_factory.mktemp("report")
    path = folder / "report.html"
    path.write_text(format_page(small_report(folder), num_pictures=4))
    return path


@pytest.fixture
def page(browser, report_page):
    """The browser with that report, freshly opened on a desk's screen."""
    show(browser, DESK)
    run_scripts(browser, True)
    browser.get_log("browser"), browser.get_log("performance")
    browser.get(report_page.as_uri())
    return browser
