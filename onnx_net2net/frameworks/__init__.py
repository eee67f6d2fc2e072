"""The frameworks: each imported only when asked for."""
