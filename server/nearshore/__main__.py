"""Where every nearshore process begins: the console command, and `python -m nearshore`."""

from nearshore.cli.interrupts import ending_at_once, heed_sigterm
from nearshore.garbage import none_collected


def main() -> None:
    """Run the command that sys.argv names and end the process with its exit code."""
    heed_sigterm()
    with ending_at_once(), none_collected():
        from nearshore.cli.main import main as run_command  # noqa: PLC0415 -- it takes a third of a second

    run_command()


if __name__ == "__main__":
    main()
