"""Independent test suites on a mount: programs that know nothing of disfs say whether it is a file system."""
