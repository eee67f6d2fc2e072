"""A model as a graph: its shapes, what they depend on, and the axes of every tensor."""
