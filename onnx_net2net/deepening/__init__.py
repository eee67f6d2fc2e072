"""Places for new layers and blocks of a model, and inserting and copying them."""
