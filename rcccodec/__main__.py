"""``python -m rcccodec``, and what the ``rcc`` script calls; Ctrl-C is one line during the imports too."""

import sys


def main() -> None:
    """Run ``rcc`` and exit with its code."""
    try:
        from rcccodec.cli import main as run
    except KeyboardInterrupt:
        sys.stderr.write("rcc: interrupted\n")
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
