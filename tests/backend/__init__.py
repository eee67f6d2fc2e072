"""ONNX's own backend tests, run through everything that reads a model."""
