"""What a volume knows about its files: inodes, names, extended attributes, where each chunk lies."""
