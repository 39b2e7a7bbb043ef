"""Where the process begins: an interrupt while the command line is still being imported ends it without a traceback."""

import signal


def main() -> None:
    """Runs the command line of this process and exits with its code."""
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:  # not where the parent has it ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from formicary.cli.main import main as run

    signal.signal(signal.SIGINT, handler)
    run()
