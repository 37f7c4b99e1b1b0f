"""Where file contents live: a local cache of sparse files, and packs in messages."""
