"""Adapters over the linear layers of another network: what LoRA trainers write."""
from networks.clip import clip
from networks.latent_diffusion import unet
from networks.net import Net

LINEARS = ('to_q', 'to_k', 'to_v', 'to_out.0', 'ff.net.0.proj', 'ff.net.2')
TE_LINEARS = ('q_proj', 'k_proj', 'v_proj', 'out_proj', 'fc1', 'fc2')


def modules(net, tails, part=''):
    """(name without .weight, out, in) of the linear layers a LoRA changes."""
    for name, (_, shape) in net.items():
        if name.endswith('.weight') and len(shape) == 2 and name[:-7].endswith(tails) and part in name:
            yield name[:-7], shape[0], shape[1]


def unet_modules(base, small, ldm=False, part='transformer_blocks'):
    shape = unet(base, 'normal', small)
    return modules(shape.ldm() if ldm else shape.diffusers(), LINEARS, part)


def text_modules(width, small):
    """Text widths tell what a LoRA is for, so small ones have fewer layers and their real width."""
    return modules(clip(width, 1 if small else {768: 12, 1024: 23, 1280: 32}[width]), TE_LINEARS)


def kohya(net, prefix, found, rank=4):
    for name, out, into in found:
        name = prefix + name.replace('.', '_')
        net[name + '.alpha'] = (net.dtype, ())
        net.add(name + '.lora_down.weight', rank, into)
        net.add(name + '.lora_up.weight', out, rank)


def peft(net, prefix, found, rank=4):
    for name, out, into in found:
        net.add('%s%s.lora_A.weight' % (prefix, name), rank, into)
        net.add('%s%s.lora_B.weight' % (prefix, name), out, rank)


def layers(net, *parts):
    """(name without .weight, out, in) of all linear layers with one of these parts in their names."""
    for name, (_, shape) in net.items():
        if name.endswith('.weight') and len(shape) == 2 and (not parts or any(part in name for part in parts)):
            yield name[:-7], shape[0], shape[1]


def factors(width, most=16):
    """The two factors of a width as LyCORIS takes them: the small one first."""
    small = max(f for f in range(1, most + 1) if width % f == 0)
    return small, width // small


def pair(net, name, out, into, rank=4, halves=('.lora_down.weight', '.lora_up.weight'), alpha=True, dora=False):
    if alpha:
        net[name + '.alpha'] = (net.dtype, ())
    net.add(name + halves[0], rank, into)
    net.add(name + halves[1], out, rank)
    if dora:
        net.add(name + '.dora_scale', out, 1)


def loha(net, name, out, into, rank=4):
    net[name + '.alpha'] = (net.dtype, ())
    for half in ('w1', 'w2'):
        net.add('%s.hada_%s_a' % (name, half), out, rank)
        net.add('%s.hada_%s_b' % (name, half), rank, into)


def lokr(net, name, out, into, rank=0):
    """rank: of the big factor, which is whole without one."""
    (a, b), (c, d) = factors(out), factors(into)
    net[name + '.alpha'] = (net.dtype, ())
    net.add(name + '.lokr_w1', a, c)
    if rank:
        net.add(name + '.lokr_w2_a', b, rank)
        net.add(name + '.lokr_w2_b', rank, d)
    else:
        net.add(name + '.lokr_w2', b, d)


def lokr_both(net, name, out, into, rank=2):
    """Both factors in two halves."""
    (a, b), (c, d) = factors(out), factors(into)
    net[name + '.alpha'] = (net.dtype, ())
    for half, (x, y) in (('w1', (a, c)), ('w2', (b, d))):
        net.add('%s.lokr_%s_a' % (name, half), x, rank)
        net.add('%s.lokr_%s_b' % (name, half), rank, y)


def full(net, name, out, into):
    net.add(name + '.diff', out, into)
    net.add(name + '.diff_b', out)


def ia3(net, name, out, into):
    on_input = name.endswith(('fc2', 'ff_net_2'))
    net.add(name + '.weight', into if on_input else out)
    net[name + '.on_input'] = ('I64', ())


def oft(net, name, out, into):
    net[name + '.alpha'] = (net.dtype, ())
    net.add(name + '.oft_blocks', 4, out // 4, out // 4)


def adapt(found, prefix='', join='.', make=pair, net=None, dtype='BF16', **options):
    """The adapters that make writes for each layer found, under a prefix, with the parts of names joined by join."""
    net = Net(dtype) if net is None else net
    for name, out, into in found:
        make(net, prefix + (name if join == '.' else name.replace('.', join)), out, into, **options)
    return net


PEFT_HALVES = {'halves': ('.lora_A.weight', '.lora_B.weight'), 'alpha': False}
PEFT_NAMED = {'halves': ('.lora_A.default.weight', '.lora_B.default.weight'), 'alpha': False}


def t5_modules(blocks=2):
    for i in range(blocks):
        for part in 'qkvo':
            yield 'encoder.block.%d.layer.0.SelfAttention.%s' % (i, part), 4096, 4096
        for part, out, into in (('wi_0', 10240, 4096), ('wi_1', 10240, 4096), ('wo', 4096, 10240)):
            yield 'encoder.block.%d.layer.1.DenseReluDense.%s' % (i, part), out, into
