"""Named dimensions of a model, and growing them."""
