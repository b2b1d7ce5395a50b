"""Runs the command line as `python -m nearshore`."""

from nearshore.cli.main import main

if __name__ == "__main__":
    main()
