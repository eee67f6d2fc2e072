"""PyTorch and Keras, each imported only when asked for: two folders of one shape.

    importer.py     a model as a module: to_torch, to_keras; what has no translation is refused
    exporter.py     a module as a model: from_torch, from_keras
    translator.py   tensors by name while the steps of a graph are translated in order
    operation.py    what a translation is given: a step with its attributes and operands
    operators/      the translations, one file a family
    types.py        element types; unsigned.py: integers that the framework does not compute with

``torch`` writes the code of a module; ``keras`` builds a model of Keras' own layers, and has a
layer that walks those nodes of a graph which none of them computes.
What serves both lies beside them: steps and what a translation may ask of one, padding, fusions,
names and roles of weights, and what carries weights and optimizer state to and fro.
"""

# The families of operators: each is a file in both folders, with TABLES of functions by domain.
FAMILIES = (
    "attention", "classical", "control", "convolution", "elementwise", "indexing", "linear",
    "movement", "normalisation", "pooling", "quantization", "random", "rearranging", "recurrent",
    "reduction", "resizing", "sampling", "sequences", "signal",
)  # fmt: skip
