"""A network as the tensors it has: name -> (dtype, shape)."""


class Net(dict):
    def __init__(self, dtype='F16'):
        super().__init__()
        self.dtype = dtype

    def add(self, name, *shape):
        self[name] = (self.dtype, shape)

    def linear(self, name, out, into, bias=True):
        self.add(name + '.weight', out, into)
        if bias:
            self.add(name + '.bias', out)

    def conv(self, name, out, into, k=3):
        self.add(name + '.weight', out, into, k, k)
        self.add(name + '.bias', out)

    def norm(self, name, width):
        self.add(name + '.weight', width)
        self.add(name + '.bias', width)

    def include(self, prefix, other):
        for name, spec in other.items():
            self[prefix + name] = spec
        return self
