"""``python -m rcccodec``: the ``rcc`` command, for ``torchrun -m rcccodec``."""

from rcccodec.cli import main

if __name__ == "__main__":
    main()
