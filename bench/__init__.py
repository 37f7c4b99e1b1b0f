"""The benchmark: a real mount on an emulator shaped like a home connection to Discord; docs/benchmarks.md explains it.

Not part of the tests, and no import of theirs. `python -m bench` runs all rows, `--help` says what else.
"""
