"""Models as PyTorch modules: in this process, or written down as a package of their own.

module = to_torch(model)                     # trains on: module.train(), optimizer, ...
write_package(model, "grown")                # grown/model.py and grown/model.safetensors
"""

from onnx_net2net.frameworks.torch.importer import to_torch, write_package

__all__ = ["to_torch", "write_package"]
