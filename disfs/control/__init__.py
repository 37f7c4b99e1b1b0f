"""The Unix socket through which other processes talk to a mounted volume."""
