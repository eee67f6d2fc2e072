"""Functions that generated models call, copied into them as they stand here."""
