"""The table of faults at the end of a session."""

import underfire


def pytest_terminal_summary(terminalreporter):
    """Print what each fault did."""
    if underfire.TABLE:
        terminalreporter.section("faults")
        for line in (underfire.HEAD, *underfire.TABLE):
            terminalreporter.write_line(str(line))
