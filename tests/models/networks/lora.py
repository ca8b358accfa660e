"""Adapters over the linear layers of another network: what LoRA trainers write."""
from networks.clip import clip
from networks.latent_diffusion import unet

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
