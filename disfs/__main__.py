"""`python -m disfs`: the command line."""

from __future__ import annotations


def main() -> None:
    """Run the command line and exit with its code."""
    from disfs.cli import main as command_line

    command_line()


if __name__ == "__main__":
    main()
