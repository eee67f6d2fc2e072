"""Several steps of growth as one, what they cost, and the history that they leave."""
