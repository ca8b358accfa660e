"""Files that are not safetensors, as what writers.py writes them from."""


class Gguf:
    """A network with its metadata."""

    def __init__(self, net, metadata=None):
        self.net, self.metadata = net, metadata or {}


class Torch:
    """A zip checkpoint: dicts of dicts, texts, numbers and (dtype, shape)."""

    def __init__(self, tree):
        self.tree = tree


class Onnx:
    """A graph by what it takes and gives: {name: shape}, a dimension a number or a name."""

    def __init__(self, inputs, outputs):
        self.inputs, self.outputs = inputs, outputs
