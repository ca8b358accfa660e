"""Networks that enlarge or restore pictures."""
from catalogue.case import Case, REFUSED, kind
from networks import upscalers
from networks.containers import Torch
from networks.net import Net

SPANDREL = 'chaiNNer-org/spandrel: architectures/'
BASICSR = 'XPixelGroup/BasicSR: models/base_model.py (params, params_ema)'
UPSCALER = kind('spandrel_image_to_image', 'any', 'checkpoint')


def of(architecture):
    return dict(UPSCALER, architecture=architecture)


def file(build, *args):
    return lambda small: {'': build(*args)}


def pickled(build, *wrappers):
    """BasicSR writes the network once for each name."""
    def make(small):
        net = dict(build())
        return {'': Torch({wrapper: net for wrapper in wrappers} if wrappers else net)}
    return make


def classifier(small):
    """A row of layers, but no convolutions over pictures."""
    net = Net('F32')
    for i in range(4):
        net.linear('body.%d' % i, 64, 64)
    return {'': net}


CASES = {
    'esrgan': Case('RealESRGAN_x4plus.safetensors', file(upscalers.esrgan), of('ESRGAN'), SPANDREL + 'ESRGAN'),
    'esrgan-old': Case('4x-UltraSharp.safetensors', file(upscalers.esrgan, 'old'), of('ESRGAN'), SPANDREL + 'ESRGAN'),
    'esrgan-middle': Case('BSRGAN.safetensors', file(upscalers.esrgan, 'middle'), of('ESRGAN'), SPANDREL + 'ESRGAN'),
    'esrgan-pth': Case('RealESRGAN_x4plus.pth', pickled(upscalers.esrgan, 'params_ema'), of('ESRGAN'), BASICSR),
    'esrgan-pth-params': Case('RealESRGAN_x4plus_anime_6B.pth', pickled(upscalers.esrgan, 'params'), of('ESRGAN'), BASICSR),
    'esrgan-pth-bare': Case('4x_foolhardy_Remacri.pth', pickled(lambda: upscalers.esrgan('old')), of('ESRGAN'), BASICSR),
    'mm-realsr': Case('MMRealSRGAN.safetensors', file(upscalers.mm_realsr), of('MMRealSR'), SPANDREL + 'MMRealSR'),
    'compact': Case('realesr-general-x4v3.safetensors', file(upscalers.compact, 32), of('Compact'), SPANDREL + 'Compact'),
    'compact-pth': Case('realesr-animevideov3.pth', pickled(upscalers.compact, 'params'), of('Compact'), BASICSR),
    'swinir': Case('SwinIR_x4.safetensors', file(upscalers.swinir), of('SwinIR'), SPANDREL + 'SwinIR'),
    'swin2sr': Case('Swin2SR_x4.safetensors', file(upscalers.swinir, True), of('Swin2SR'), SPANDREL + 'Swin2SR'),
    'hat': Case('4xNomos8kSCHAT-L.safetensors', file(upscalers.hat), of('HAT'), SPANDREL + 'HAT'),
    'dat': Case('4xNomos8kDAT.safetensors', file(upscalers.dat), of('DAT'), SPANDREL + 'DAT'),
    'rgt': Case('RGT_x4.safetensors', file(upscalers.rgt), of('RGT'), SPANDREL + 'RGT'),
    'atd': Case('ATD_x4.safetensors', file(upscalers.atd), of('ATD'), SPANDREL + 'ATD'),
    'drct': Case('DRCT_x4.safetensors', file(upscalers.drct), of('DRCT'), SPANDREL + 'DRCT'),
    'grl': Case('GRL_x4.safetensors', file(upscalers.grl), of('GRL'), SPANDREL + 'GRL'),
    'omnisr': Case('OmniSR_x4.safetensors', file(upscalers.omnisr), of('OmniSR'), SPANDREL + 'OmniSR'),
    'span': Case('2x-span.safetensors', file(upscalers.span), of('SPAN'), SPANDREL + 'SPAN'),
    'plksr': Case('4xPLKSR.safetensors', file(upscalers.plksr, 'channe_mixer'), of('PLKSR'), SPANDREL + 'PLKSR'),
    'real-plksr': Case('4xRealPLKSR.safetensors', file(upscalers.plksr), of('PLKSR'), SPANDREL + 'PLKSR'),
    'mosr': Case('4xMoSR.safetensors', file(upscalers.mosr), of('MoSR'), SPANDREL + 'MoSR'),
    'rcan': Case('2x-AnimeSharpV4_RCAN.safetensors', file(upscalers.rcan), of('RCAN'), SPANDREL + 'RCAN'),
    'scunet': Case('scunet_color_real_psnr.safetensors', file(upscalers.scunet), of('SCUNet'), SPANDREL + 'SCUNet'),
    'nafnet': Case('NAFNet-SIDD-width64.safetensors', file(upscalers.nafnet), of('NAFNet'), SPANDREL + 'NAFNet'),
    'safmn': Case('SAFMN_x4.safetensors', file(upscalers.safmn), of('SAFMN'), SPANDREL + 'SAFMN'),
    'real-cugan': Case('up2x-latest-conservative.safetensors', file(upscalers.real_cugan), of('RealCUGAN'), SPANDREL + 'RealCUGAN'),
    'gfpgan': Case('GFPGANv1.4.safetensors', file(upscalers.gfpgan), of('GFPGAN'), SPANDREL + 'GFPGAN'),
    'bad-row-of-layers': Case('classifier.safetensors', classifier, REFUSED, 'made to be refused'),
}
