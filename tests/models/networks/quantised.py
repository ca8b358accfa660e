"""What quantisers make of a network."""
from networks.containers import Gguf
from networks.net import Net


def _is_matrix(name, shape):
    return name.endswith('.weight') and len(shape) == 2 and min(shape) >= 64


def nf4(net):
    """bitsandbytes, 4 bits: packed weights with their quantisation state beside them."""
    made = Net(net.dtype)
    for name, (dtype, shape) in net.items():
        made[name] = (dtype, shape)
        if _is_matrix(name, shape):
            count = shape[0] * shape[1]
            made[name] = ('U8', (count // 2, 1))
            made[name + '.absmax'] = ('U8', (count // 64,))
            made[name + '.quant_map'] = ('F32', (16,))
            made[name + '.nested_absmax'] = ('F32', (max(count // 64 // 256, 1),))
            made[name + '.nested_quant_map'] = ('F32', (256,))
            made[name + '.quant_state.bitsandbytes__nf4'] = ('U8', (135,))
    return made


def int8(net):
    """bitsandbytes, 8 bits: rows with a scale each."""
    made = Net(net.dtype)
    for name, (dtype, shape) in net.items():
        made[name] = (dtype, shape)
        if _is_matrix(name, shape) and 'shared' not in name and 'embed' not in name:
            made[name] = ('I8', shape)
            made[name[:-len('weight')] + 'SCB'] = ('F32', (shape[0],))
            made[name[:-len('weight')] + 'weight_format'] = ('U8', ())
    return made


def sdnq(net, keep=('embed', 'norm', 'img_in', 'txt_in', 'time_', 'proj_out', 'final_layer')):
    """SDNQ, 8 bits: rows with a scale each; small layers stay as they are."""
    made = Net(net.dtype)
    for name, (dtype, shape) in net.items():
        made[name] = (dtype, shape)
        if _is_matrix(name, shape) and not any(part in name for part in keep):
            made[name] = ('I8', shape)
            made[name[:-len('weight')] + 'scale'] = ('F32', (shape[0], 1))
    return made


def gguf(net, architecture, **metadata):
    """Matrices as Q4_K where their rows are whole blocks, else as Q8_0 or F16; vectors as F32."""
    made = Net()
    for name, (_, shape) in net.items():
        if len(shape) < 2:
            made[name] = ('F32', shape)
        else:
            made[name] = ('Q4_K' if shape[-1] % 256 == 0 else 'Q8_0' if shape[-1] % 32 == 0 else 'F16', shape)
    return Gguf(made, dict({'general.architecture': architecture},
                           **{key.replace('__', '.'): value for key, value in metadata.items()}))
