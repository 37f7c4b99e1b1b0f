"""System calls in all their cases, on what is tested and on a local directory: the same answers, errno by errno."""
