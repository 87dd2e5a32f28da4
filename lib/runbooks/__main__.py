"""The console script, and ``python -m runbooks``: what has to be in force before everything else is imported."""

from __future__ import annotations

import signal


def main() -> None:
    """Run the command line; Ctrl-C ends it without a word while it is still being imported, since nothing runs yet."""
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not where whoever started us ignores it
    if ours:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from runbooks import cli

    if ours:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    cli.main()


if __name__ == "__main__":
    main()
