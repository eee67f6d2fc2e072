"""A model as a Keras 3 model, on TensorFlow, JAX or PyTorch."""
