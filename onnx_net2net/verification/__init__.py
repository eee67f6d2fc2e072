"""Whether two models compute the same: onnxruntime decides, and nothing here knows of growth."""
