"""PiD decoders."""
from catalogue.case import Case, REFUSED, kind
from networks.net import Net
from networks.pid import pid

PID = 'invoke-ai/InvokeAI: backend/pid (pid_net.py, pixeldit_official.py, lq_projection_2d.py, decode.py); nvidia/PiD'


def decoder(base, variant):
    return kind('pid_decoder', base, 'checkpoint', variant=variant)


def file_of(channels, prefix='net.', without='', extra='', hidden=512):
    def make(small):
        net = Net('BF16').include(prefix, pid(channels, hidden))
        for name in [name for name in net if without and without in name]:
            del net[name]
        if extra:
            net.add(extra, 4)
        return {'': net}
    return make


CASES = {
    'pid-flux': Case('PiD_res2k_sr4x_official_flux.safetensors', file_of(16), decoder('flux', 'res2k_sr4x'), PID),
    'pid-flux-4k': Case('PiD_res2kto4k_sr4x_official_flux.safetensors', file_of(16, ''), decoder('flux', 'res2kto4k_sr4x'), PID),
    'pid-sd3': Case('PiD_res2k_sr4x_official_sd3.safetensors', file_of(16), decoder('sd-3', 'res2k_sr4x'), PID),
    'pid-sd3-4k': Case('PiD_res2k_to_4k_sd3.safetensors', file_of(16), decoder('sd-3', 'res2kto4k_sr4x'), PID),
    'pid-qwen-image': Case('PiD_official_qwen_image.safetensors', file_of(16), decoder('qwen-image', 'res2kto4k_sr4x'), PID),
    'pid-qwen-image-2k': Case('PiD_res2k_qwenimage.safetensors', file_of(16), decoder('qwen-image', 'res2k_sr4x'), PID),
    'pid-sdxl': Case('pid-model-a.safetensors', file_of(4), decoder('sdxl', 'res2kto4k_sr4x'), PID),
    'pid-sdxl-2k': Case('pid-res2k-a.safetensors', file_of(4), decoder('sdxl', 'res2k_sr4x'), PID),
    'pid-flux2': Case('pid-model-b.safetensors', file_of(128), decoder('flux2', 'res2k_sr4x'), PID),
    'pid-flux2-4k': Case('pid-res2kto4k-b.safetensors', file_of(128), decoder('flux2', 'res2kto4k_sr4x'), PID),
    'bad-pid-unnamed': Case('pid-model-c.safetensors', file_of(16), REFUSED, PID),
    'bad-pid-truncated': Case('pid-flux-truncated.safetensors', file_of(16, without='pixel_blocks.1.'), REFUSED, PID),
    'bad-pid-newer': Case('pid-flux-1.5.safetensors', file_of(16, hidden=1024), REFUSED, PID),
    'bad-pid-channels': Case('pid-flux-24.safetensors', file_of(24), REFUSED, PID),
    'bad-pid-more': Case('pid-flux-more.safetensors', file_of(16, extra='net.pit_lq_gate.log_alpha'), REFUSED, PID),
}
