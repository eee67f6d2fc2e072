"""Models: files whose weights are read when asked for, checks of what is read, and the graph."""
