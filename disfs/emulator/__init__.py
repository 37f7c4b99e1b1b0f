"""A Discord to run against: REST and CDN on the loopback interface, with its limits, its delays and its failures.

It stands alone: it imports nothing of the rest of disfs and nothing imports it. `python -m disfs.emulator`
runs it; `docs/emulator.md` describes its data directory, its control API, its settings and its faults.
"""
