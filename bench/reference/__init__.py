"""File systems that disfs is compared with: they do as little as anything can that is written with pyfuse3.

They run in the same request loop as disfs, answer each request that disfs answers, and keep nothing of what disfs
promises: no durability, no Discord, no limits. What disfs needs beyond them is the price of its promises.
"""
