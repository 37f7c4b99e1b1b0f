"""disfs: a Discord server as a disk."""

__version__ = "0.1.0"
