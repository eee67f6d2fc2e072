"""Model files: bytes on disk, weights that are read when asked for, checks of what is read."""
