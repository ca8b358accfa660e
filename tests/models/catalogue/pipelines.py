"""Folders of diffusers pipelines whose transformer is one of networks/: index, configs, weights of what tells."""
from networks.clip import clip
from networks.latent_diffusion import vae_diffusers
from networks.net import Net

SCHEDULER = {'_class_name': 'FlowMatchEulerDiscreteScheduler', 'num_train_timesteps': 1000, 'shift': 3.0}
WEIGHTS = 'diffusion_pytorch_model%s.safetensors'
PARTS = { # class: (library, config, build of the weights or None)
    'CLIPTextModel': ('transformers', {'hidden_size': 768, 'model_type': 'clip_text_model'}, clip),
    'CLIPTextModelWithProjection': ('transformers', {'hidden_size': 1280, 'model_type': 'clip_text_model'},
                                    lambda small: clip(1280, 32, small, True)),
    'AutoencoderKL': ('diffusers', {'latent_channels': 16}, lambda small: vae_diffusers(16)),
}


def stand_in(small):
    """Weights of a part that tells nothing of the pipeline."""
    net = Net('BF16')
    net.add('model.norm.weight', 64)
    return net


def shards(folder, net, count=2):
    """The weights of one network in several files and the index that says which is where."""
    names = sorted(net)
    files, weight_map = {}, {}
    for i in range(count):
        file = 'model-%05d-of-%05d.safetensors' % (i + 1, count)
        part = Net(net.dtype)
        for name in names[i::count]:
            part[name] = net[name]
            weight_map[name] = file
        files[folder + file] = part
    files[folder + 'model.safetensors.index.json'] = {'metadata': {}, 'weight_map': weight_map}
    return files


def part(folder, name, class_name, config, net, label=''):
    """The files of one part of a pipeline."""
    key = 'architectures' if name.startswith(('text_encoder', 'image_encoder')) else '_class_name'
    said = {key: [class_name] if key == 'architectures' else class_name}
    file = ('model%s.safetensors' if key == 'architectures' else WEIGHTS) % label
    return {folder + name + '/config.json': dict(said, **config), folder + name + '/' + file: net}


def pipeline(class_name, transformer, config, parts, scheduler=SCHEDULER, index=None, label='', extra=None,
             transformer_class=None):
    """transformer: build(small=…); parts: {name: class}; index: more entries; extra(small): more files."""
    def make(small):
        listed = dict({'_class_name': class_name, '_diffusers_version': '0.36.0'}, **(index or {}))
        files = {'model_index.json': listed}
        if scheduler:
            listed['scheduler'] = ['diffusers', scheduler['_class_name']]
            files['scheduler/scheduler_config.json'] = scheduler
        if transformer:
            listed['transformer'] = ['diffusers', transformer_class]
            files.update(part('', 'transformer', transformer_class, config, transformer(small=small), label))
        for name, kind in parts.items():
            library, about, build = PARTS.get(kind, ('diffusers' if kind.startswith('Auto') else 'transformers', {}, stand_in))
            listed[name] = [library, kind]
            if name.startswith('tokenizer'):
                files[name + '/tokenizer_config.json'] = {'tokenizer_class': kind}
            else:
                files.update(part('', name, kind, about, build(small=small), label))
        if extra:
            files.update(extra(small))
        return files
    return make
