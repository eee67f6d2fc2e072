"""What axes are made of, and how units are copied: no operator, no graph, no ONNX."""
