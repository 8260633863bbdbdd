"""The command line's entry: `python -m wootz`, and the script `wootz`."""

import signal


def main() -> None:
    """Run the command line; Ctrl-C while it is loaded ends the process without a traceback."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from wootz.cli.app import main as run

    run()


if __name__ == "__main__":
    main()
