"""The option `--accuracy FILE`, which writes what a run of these tests measured."""

import pathlib


def pytest_addoption(parser):
    parser.addoption("--accuracy", metavar="FILE", help="write the table of errors")


def pytest_sessionfinish(session, exitstatus):
    from interop import parity

    target = session.config.getoption("accuracy", None)
    if target and exitstatus == 0:
        pathlib.Path(target).write_text(parity.page(), "utf-8")
