"""``python -m freqrobust`` is the command ``freqrobust``."""

from freqrobust.cli.main import main

if __name__ == "__main__":
    main()
