"""An hour of mixed load on a real mount while Discord fails in every way it knows, and whether anybody noticed.

    python -m bench.soak --minutes 60 --seed 1

Not part of the tests: it takes as long as it is told to, and its figures depend on the machine. A few seconds of it
are a test, so that the program itself keeps working.
"""
