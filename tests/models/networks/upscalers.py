"""Networks that enlarge or restore pictures, each a table of what its blocks hold: {name: shape}, the blocks counted."""
from networks.net import Net


def conv(name, out, into, k=3, bias=True):
    made = {name + '.weight': (out, into, k, k)}
    if bias:
        made[name + '.bias'] = (out,)
    return made


def linear(name, out, into):
    return {name + '.weight': (out, into), name + '.bias': (out,)}


def norm(name, width):
    return {name + '.weight': (width,), name + '.bias': (width,)}


def join(*tables):
    return {name: shape for table in tables for name, shape in table.items()}


def lay(*parts):
    """parts: (prefix with %d, the counts, table); a count of () is once."""
    net = Net('F32')
    for prefix, counts, table in parts:
        places = [()]
        for count in counts:
            places = [place + (i,) for place in places for i in range(count)]
        for place in places:
            for name, shape in table.items():
                net.add(prefix % place + name, *shape)
    return net


def ends(first, width, last='conv_last', after=True):
    """What is around the layers of the transformers."""
    return join(conv(first, width, 3), norm('norm', width), conv('conv_after_body', width, width) if after else {},
                conv('conv_before_upsample.0', 64, width), conv('upsample.0', 256, 64), conv(last, 3, 64))


def dense(name, tail=''):
    """A residual dense block: five convolutions, each over all before."""
    return join(*(conv('%s.conv%d%s' % (name, i + 1, tail), 64 if i == 4 else 32, 64 + 32 * i) for i in range(5)))


def esrgan(naming='new', blocks=23):
    if naming == 'old':
        return lay(('', (), join(conv('model.0', 64, 3), conv('model.1.sub.%d' % blocks, 64, 64),
                                 *(conv('model.%d' % i, 64 if i < 10 else 3, 64) for i in (3, 6, 8, 10)))),
                   ('model.1.sub.%d.', (blocks,), join(*(dense('RDB%d' % i, '.0') for i in (1, 2, 3)))))
    names = {'new': ('body', 'rdb', 'conv_body', 'conv_up', 'conv_hr'), 'middle': ('RRDB_trunk', 'RDB', 'trunk_conv', 'upconv', 'HRconv')}
    body, block, trunk, up, high = names[naming]
    return lay(('', (), join(conv('conv_first', 64, 3), conv(trunk, 64, 64), conv(up + '1', 64, 64), conv(up + '2', 64, 64),
                             conv(high, 64, 64), conv('conv_last', 3, 64))),
               (body + '.%d.', (blocks,), join(*(dense('%s%d' % (block, i)) for i in (1, 2, 3)))))


def mm_realsr():
    net = esrgan()
    net.update(lay(('', (), join(conv('de_net.conv_first.0', 64, 3), linear('de_net.fc_degree.0.0', 512, 512), linear('dd_embed.0', 64, 2))),
                   ('am_list.%d.', (23,), linear('fc.0', 64, 64)),
                   ('de_net.body.%d.%d.', (4, 2), join(conv('conv1', 64, 64), conv('conv2', 64, 64)))))
    return net


def compact(convolutions=16):
    net = Net('F32')
    for i in range(convolutions + 1):
        for name, shape in conv('body.%d' % (2 * i), 64, 64 if i else 3).items():
            net.add(name, *shape)
        net.add('body.%d.weight' % (2 * i + 1), 64)
    for name, shape in conv('body.%d' % (2 * convolutions + 2), 48, 64).items():
        net.add(name, *shape)
    return net


def swin_block(width, second=False, heads=6):
    attention = ({'attn.logit_scale': (heads, 1, 1), 'attn.q_bias': (width,), 'attn.v_bias': (width,), 'attn.qkv.weight': (3 * width, width),
                  'attn.relative_coords_table': (1, 15, 15, 2), 'attn.cpb_mlp.0.weight': (512, 2), 'attn.cpb_mlp.0.bias': (512,),
                  'attn.cpb_mlp.2.weight': (heads, 512)} if second else
                 join({'attn.relative_position_bias_table': (225, heads)}, linear('attn.qkv', 3 * width, width)))
    return join(attention, {'attn.relative_position_index': (64, 64)}, norm('norm1', width), linear('attn.proj', width, width), norm('norm2', width),
                linear('mlp.fc1', 2 * width, width), linear('mlp.fc2', width, 2 * width))


def swinir(second=False, width=180):
    return lay(('', (), join(ends('conv_first', width), norm('patch_embed.norm', width), conv('patch_embed.proj', width, width, 1) if second else {})),
               ('layers.%d.residual_group.blocks.%d.', (6, 6), swin_block(width, second)),
               ('layers.%d.', (6,), join(conv('conv', width, width), conv('patch_embed.proj', width, width, 1) if second else {})))


def hat(width=180):
    block = join(norm('norm1', width), {'attn.relative_position_bias_table': (961, 6)}, linear('attn.qkv', 3 * width, width), linear('attn.proj', width, width),
                 conv('conv_block.cab.0', 60, width), conv('conv_block.cab.2', width, 60), conv('conv_block.cab.3.attention.1', 6, width, 1),
                 conv('conv_block.cab.3.attention.3', width, 6, 1), norm('norm2', width), linear('mlp.fc1', 2 * width, width), linear('mlp.fc2', width, 2 * width))
    overlap = join({'relative_position_bias_table': (1521, 6)}, norm('norm1', width), linear('qkv', 3 * width, width), linear('proj', width, width),
                   norm('norm2', width), linear('mlp.fc1', 2 * width, width), linear('mlp.fc2', width, 2 * width))
    return lay(('', (), join(ends('conv_first', width), norm('patch_embed.norm', width), {'relative_position_index_SA': (256, 256), 'relative_position_index_OCA': (256, 576)})),
               ('layers.%d.residual_group.blocks.%d.', (6, 6), block), ('layers.%d.residual_group.overlap_attn.', (6,), overlap),
               ('layers.%d.', (6,), conv('conv', width, width)))


def positions(name):
    return join({name + '.rpe_biases': (961, 2), name + '.relative_position_index': (256, 256)}, linear(name + '.pos.pos_proj', 5, 2),
                *(join(norm('%s.pos.pos%d.0' % (name, i), 5), linear('%s.pos.pos%d.2' % (name, i), 5 if i < 3 else 3, 5)) for i in (1, 2, 3)))


def statistics(name, width):
    return join(norm(name, width), {name + '.running_mean': (width,), name + '.running_var': (width,), name + '.num_batches_tracked': ()})


def dat(width=180):
    block = join(norm('norm1', width), norm('norm2', width), linear('attn.qkv', 3 * width, width), linear('attn.proj', width, width),
                 {'attn.dwconv.0.weight': (width, 1, 3, 3), 'attn.dwconv.0.bias': (width,)}, statistics('attn.dwconv.1', width),
                 conv('attn.channel_interaction.1', 22, width, 1), statistics('attn.channel_interaction.2', 22), conv('attn.channel_interaction.4', width, 22, 1),
                 conv('attn.spatial_interaction.0', 11, width, 1), statistics('attn.spatial_interaction.1', 11), conv('attn.spatial_interaction.3', 1, 11, 1),
                 linear('ffn.fc1', 4 * width, width), norm('ffn.sg.norm', 2 * width), {'ffn.sg.conv.weight': (2 * width, 1, 3, 3), 'ffn.sg.conv.bias': (2 * width,)},
                 linear('ffn.fc2', width, 2 * width))
    return lay(('', (), join(ends('conv_first', width), norm('before_RG.1', width))), ('layers.%d.blocks.%d.', (6, 6), block),
               ('layers.%d.blocks.0.', (6,), join(positions('attn.attns.0'), positions('attn.attns.1'))), ('layers.%d.', (6,), conv('conv', width, width)))


def rgt(width=180):
    block = join(norm('norm1', width), norm('norm2', width), {'gamma': (width,)}, linear('attn.proj', width, width), linear('mlp.fc1', 4 * width, width),
                 norm('mlp.sg.norm', 2 * width), {'mlp.sg.conv.weight': (2 * width, 1, 3, 3), 'mlp.sg.conv.bias': (2 * width,)}, linear('mlp.fc2', width, 2 * width))
    return lay(('', (), join(ends('conv_first', width), norm('before_RG.1', width))), ('layers.%d.blocks.%d.', (6, 6), block),
               ('layers.%d.blocks.0.', (6,), join(linear('attn.qkv', 3 * width, width), positions('attn.attns.0'), positions('attn.attns.1'))),
               ('layers.%d.', (6,), conv('conv', width, width)))


def atd(width=210):
    layer = join({'sigma': (128, 1), 'attn_win.relative_position_bias_table': (961, 6), 'attn_atd.scale': (128,), 'attn_aca.logit_scale': (1, 1)},
                 norm('norm1', width), norm('norm2', width), norm('norm3', 128), linear('wqkv', 3 * width, width), linear('attn_win.proj', width, width),
                 linear('attn_atd.wq', 20, width), linear('attn_atd.wk', 20, width), linear('attn_atd.wv', width, width), linear('attn_aca.proj', width, width),
                 linear('convffn.fc1', 2 * width, width), {'convffn.dwconv.depthwise_conv.0.weight': (2 * width, 1, 5, 5), 'convffn.dwconv.depthwise_conv.0.bias': (2 * width,)},
                 linear('convffn.fc2', width, 2 * width))
    return lay(('', (), join(ends('conv_first', width), norm('patch_embed.norm', width), {'relative_position_index_SA': (256, 256)})),
               ('layers.%d.residual_group.layers.%d.', (6, 6), layer), ('layers.%d.residual_group.', (6,), {'td': (128, width)}),
               ('layers.%d.', (6,), conv('conv', width, width)))


def drct(width=180):
    block = {}
    for i in range(5):
        inner = width + 32 * i
        block.update({'swin%d.%s' % (i + 1, name): shape for name, shape in swin_block(inner).items()})
        block.update(conv('adjust%d' % (i + 1), width if i == 4 else 32, inner, 1))
    return lay(('', (), join(ends('conv_first', width), norm('patch_embed.norm', width))), ('layers.%d.', (6,), block))


def grl(width=180):
    block = join(linear('attn.qkv.body', 3 * width, width), linear('attn.anchor.body.0.reduction', width // 2, width), linear('attn.proj', width, width),
                 *({'attn.%s.logit_scale' % part: (3, 1, 1), 'attn.%s.cpb_mlp.0.weight' % part: (512, 2), 'attn.%s.cpb_mlp.0.bias' % part: (512,), 'attn.%s.cpb_mlp.2.weight' % part: (3, 512)}
                   for part in ('window_attn.attn_transform', 'stripe_attn.attn_transform1', 'stripe_attn.attn_transform2')),
                 norm('norm1', width), norm('norm2', width), linear('mlp.fc1', 2 * width, width), linear('mlp.fc2', width, 2 * width))
    return lay(('', (), join(conv('conv_first', width, 3), norm('norm_start', width), norm('norm_end', width), conv('conv_after_body', width, width), conv('conv_last', 3, width))),
               ('layers.%d.blocks.%d.', (6, 4), block), ('layers.%d.', (6,), conv('conv', width, width)))


def span(width=48):
    def rep(name, out, into):
        return join(conv(name + '.sk', out, into, 1), conv(name + '.conv.0', 2 * into, into, 1), conv(name + '.conv.1', 2 * out, 2 * into),
                    conv(name + '.conv.2', out, 2 * out, 1), conv(name + '.eval_conv', out, into))
    return lay(('', (), join(rep('conv_1', width, 3), rep('conv_2', width, width), conv('conv_cat', width, 4 * width, 1), conv('upsampler.0', 48, width),
                             *(rep('block_%d.c%d_r' % (i, j), width, width) for i in range(1, 7) for j in (1, 2, 3)))))


def plksr(mixer='channel_mixer', width=64, blocks=28):
    block = join(conv(mixer + '.0', 2 * width, width), conv(mixer + '.2', width, 2 * width), conv('lk.conv', 16, 16, 17), conv('attn.f.0', width, width),
                 conv('refine', width, width, 1), norm('norm', width) if mixer == 'channel_mixer' else {})
    net = lay(('', (), join(conv('feats.0', width, 3), conv('feats.%d' % (blocks + 1), 48, width))))
    net.update(lay(*(('feats.%d.' % i, (), block) for i in range(1, blocks + 1))))
    return net


def rcan(width=64):
    return lay(('', (), join(conv('head.0', width, 3), conv('body.10', width, width), conv('tail.0.0', 256, width), conv('tail.1', 3, width))),
               ('body.%d.body.%d.body.', (10, 20), join(conv('0', width, width), conv('2', width, width), conv('3.conv_du.0', 4, width, 1), conv('3.conv_du.2', width, 4, 1))),
               ('body.%d.body.20.', (10,), {'weight': (width, width, 3, 3), 'bias': (width,)}))


def scunet(width=64):
    def block(w):
        return join(norm('trans_block.ln1', w // 2), {'trans_block.msa.relative_position_params': (1, 15, 15)}, linear('trans_block.msa.embedding_layer', 3 * w // 2, w // 2),
                    linear('trans_block.msa.linear', w // 2, w // 2), norm('trans_block.ln2', w // 2), linear('trans_block.mlp.0', 2 * w, w // 2),
                    linear('trans_block.mlp.2', w // 2, 2 * w), conv('conv1_1', w, w, 1), conv('conv1_2', w, w, 1), conv('conv_block.0', w // 2, w // 2, 3, False),
                    conv('conv_block.2', w // 2, w // 2, 3, False))
    parts = [('', (), join(conv('m_head.0', width, 3, 3, False), conv('m_tail.0', 3, width, 3, False)))]
    parts += [('m_down%d.%%d.' % (i + 1), (4,), block(width << i)) for i in range(3)]
    parts += [('m_body.%d.', (4,), block(8 * width))]
    return lay(*parts)


def nafnet(width=64):
    def block(w):
        return join({'beta': (1, w, 1, 1), 'gamma': (1, w, 1, 1)}, conv('conv1', 2 * w, w, 1), {'conv2.weight': (2 * w, 1, 3, 3), 'conv2.bias': (2 * w,)}, conv('conv3', w, w, 1),
                    conv('sca.1', w, w, 1), conv('conv4', 2 * w, w, 1), conv('conv5', w, w, 1), norm('norm1', w), norm('norm2', w))
    parts = [('', (), join(conv('intro', width, 3), conv('ending', 3, width)))]
    for i in range(4):
        parts += [('encoders.%d.%%d.' % i, (1,), block(width << i)), ('decoders.%d.%%d.' % (3 - i), (1,), block(width << i)),
                  ('', (), conv('downs.%d' % i, width << (i + 1), width << i, 2)), ('', (), conv('ups.%d.0' % (3 - i), width << (i + 2), width << (i + 1), 1, False))]
    return lay(*parts, ('middle_blks.%d.', (1,), block(16 * width)))


def safmn(width=36):
    return lay(('', (), join(conv('to_feat', width, 3), conv('to_img.0', 48, width))),
               ('feats.%d.', (8,), join(norm('norm1', width), norm('norm2', width), conv('safm.aggr', width, width, 1), conv('ccm.ccm.0', 2 * width, width), conv('ccm.ccm.2', width, 2 * width, 1),
                                        *({'safm.mfr.%d.weight' % i: (width // 4, 1, 3, 3), 'safm.mfr.%d.bias' % i: (width // 4,)} for i in range(4)))))


def real_cugan():
    def unet(name, deep):
        made = join(conv(name + '.conv1.conv.0', 32, 3), conv(name + '.conv1.conv.2', 64, 32), conv(name + '.conv1_down', 64, 64, 2), conv(name + '.conv2.conv.0', 128, 64),
                    conv(name + '.conv2.conv.2', 64, 128), conv(name + '.conv2.seblock.conv1', 8, 64, 1), conv(name + '.conv2.seblock.conv2', 64, 8, 1), conv(name + '.conv_bottom', 3, 64))
        return join(made, conv(name + '.conv3.conv.0', 256, 128), conv(name + '.conv4.conv.0', 64, 128), conv(name + '.conv5', 64, 64)) if deep else made
    return lay(('', (), join(unet('unet1', False), unet('unet2', True))))


def gfpgan():
    return lay(('', (), join(conv('conv_body_first', 32, 3, 1), conv('final_conv', 256, 256), linear('final_linear', 8192, 4096), {'stylegan_decoder.constant_input.weight': (1, 512, 4, 4)})),
               ('conv_body_down.%d.', (7,), join(conv('conv1', 64, 64), conv('conv2', 64, 64), conv('skip', 64, 64, 1, False))),
               ('toRGB.%d', (7,), conv('', 3, 256, 1)), ('stylegan_decoder.style_mlp.%d', (9,), linear('', 512, 512)))


def mosr(width=64, blocks=24):
    block = join(norm('norm', width), linear('fc1', 3 * width, width), conv('conv', width, width, 7), linear('fc2', width, 3 * width // 2), {'gamma': (width,)})
    net = lay(('', (), join(conv('gblocks.0', width, 3), conv('upsampler.0', 48, width))))
    net.update(lay(*(('gblocks.%d.' % i, (), block) for i in range(1, blocks + 1))))
    return net


def omnisr(width=64):
    attention = join(conv('layer.0.fn.0', width, width, 1), conv('layer.0.fn.1', width, width), norm('layer.2.norm', width), linear('layer.2.fn.to_qkv', 3 * width, width), linear('layer.2.fn.to_out.0', width, width))
    return lay(('', (), join(conv('input', width, 3), conv('output', width, width), conv('up.0', 48, width))), ('residual_layer.%d.residual_layer.%d.', (5, 1), attention))
