"""Mains, autoencoders and decoders as torch checkpoints."""
from catalogue.case import Case, REFUSED, kind
from catalogue.stable_diffusion import checkpoint
from networks.containers import Torch
from networks.latent_diffusion import vae_ldm
from networks.net import Net
from networks.pid import pid
from networks.wan import wan, wan_vae
from writers import Scalar

LDM = 'CompVis/stable-diffusion: main.py (pytorch_lightning checkpoints), over openaimodel.py'
PID = 'nvidia/PiD: its published .pth files, over invoke-ai/InvokeAI: backend/pid'


def main(base, **more):
    return kind('main', base, 'checkpoint', **more)


def plain(net):
    return {name: spec for name, spec in net.items() if not isinstance(spec, Scalar)}


def lightning(base, wrapped=True, **beside):
    """A training checkpoint: state_dict among other things."""
    def make(small):
        net = plain(checkpoint(base)(small)[''][0])
        return {'': Torch(dict({'state_dict': net}, **beside) if wrapped else dict(net, **beside))}
    return make


def of(build):
    return lambda small: {'': Torch(plain(build(small)))}


CASES = {
    'sd-1-ckpt': Case('v1-5-pruned.ckpt', lightning('sd-1', epoch=7, global_step=840000), main('sd-1', prediction_type='epsilon'), LDM),
    'sd-1-ckpt-bare': Case('dream.ckpt', lightning('sd-1', wrapped=False), main('sd-1', prediction_type='epsilon'), LDM),
    'sd-2-ckpt-v': Case('v2-1_768-ema-pruned.ckpt', lightning('sd-2', global_step=110000), main('sd-2', prediction_type='v_prediction'), LDM),
    'sd-2-ckpt-eps': Case('v2-1_512-ema-pruned.ckpt', lightning('sd-2', global_step=220000), main('sd-2', prediction_type='epsilon'), LDM),
    'sd-2-ckpt-unknown': Case('other-sd2.ckpt', lightning('sd-2'), main('sd-2', prediction_type='v_prediction'), LDM),
    'sdxl-pth': Case('sdxl-in-disguise.pth', lightning('sdxl'), main('sdxl', name='sdxl-in-disguise.pth'), LDM),
    'vae-pt': Case('anything-v3.vae.pt', lambda small: {'': Torch({'state_dict': plain(vae_ldm())})}, kind('vae', 'sd-1', 'checkpoint'), LDM),
    'wan-vae-pth': Case('Wan2.1_VAE.pth', of(lambda small: wan_vae(16, True)), kind('vae', 'wan', 'checkpoint', latent_channels=16),
                        'Wan-Video/Wan2.1: wan/modules/vae.py'),
    'pid-pth': Case('PiD_res2k_sr4x_official_flux_distill_4step.pth', of(lambda small: Net('BF16').include('net.', pid(16)).include('net_ema.', pid(16))),
                    kind('pid_decoder', 'flux', 'checkpoint', variant='res2k_sr4x'), PID),
    'sd-1-named-safetensors': Case('pickle-in-disguise.safetensors', lightning('sd-1'), main('sd-1'), LDM),
    'bad-wan-pth': Case('t2v.pth', of(lambda small: wan('t2v_a14b', small)), REFUSED, 'Wan-Video/Wan2.1: wan/modules/model.py'),
    'bad-numbers': Case('numbers.pt', lambda small: {'': Torch({'epoch': 7, 'loss': 0.25, 'names': {'a': 'b'}})}, REFUSED, 'made to be refused'),
    'bad-integer-names': Case('integers.pt', lambda small: {'': Torch({0: 1, 1: {'weight': ('F32', (4, 4))}})}, REFUSED, 'made to be refused'),
}
