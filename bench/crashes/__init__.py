"""Many kills and power cuts, and whether anything was lost that had been promised.

    python -m bench.crashes --kills 1000 --power-cuts 200 --seed 1

Kills are `kill -9` of the daemon at random moments, on a real mount, while several writers work and call fsync; after
each the volume is mounted again and held against a model, byte by byte and name by name. Now and then everything that
the machine knows of the volume is destroyed instead, and `disfs recover` brings it back. Power cuts are simulated:
whatever was not synced when the cut comes is gone. From a checkout: it uses the tests' writers and their model.
"""
