#!/usr/bin/python3
"""Makes model files and folders that are true in their headers: real tensor names, real shapes, no weights.

    make_models.py OUTDIR [NAME...] [--small] [--random] [--shuffle SEED] [--expected FILE]
    make_models.py --list

Without names every model is made. Tensor data is a hole in the file (a 7 GB checkpoint costs a few hundred KB of
disk), or with --random some numbers that are the same each time. --small shrinks the networks and keeps the shapes that
tell what a model is. --shuffle writes the tensors of each file in another order. --expected writes what identification
has to say of each as JSON, {path: {field: value}}, with {"error": CODE} for what has to be refused,
"given" for what the caller has to say.

What can be made is in catalogue/, one module a family of models; the networks it is laid out from are in networks/, and
each case cites where its names and shapes come from.
"""
import argparse
import json
import os
import random
import sys

import catalogue
from networks.containers import Gguf, Onnx, Torch
from writers import write_gguf, write_onnx, write_safetensors, write_torch

MODELS = catalogue.read()


def order(seed):
    """The order of the tensors in a file: by name, or shuffled."""
    def shuffled(names):
        names = sorted(names)
        random.Random(seed).shuffle(names)
        return names
    return sorted if seed is None else shuffled


def write_part(path, content, args):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if isinstance(content, bytes):
        with open(path, 'wb') as out:
            out.write(content)
    elif path.endswith('.json'):
        with open(path, 'w') as out:
            json.dump(content, out, indent=2)
    elif isinstance(content, Gguf):
        write_gguf(path, content.net, content.metadata, order(args.shuffle))
    elif isinstance(content, Torch):
        write_torch(path, content.tree, order(args.shuffle))
    elif isinstance(content, Onnx):
        write_onnx(path, content.inputs, content.outputs)
    else:
        net, metadata = content if isinstance(content, tuple) else (content, None)
        write_safetensors(path, net, metadata, args.random, order(args.shuffle))


def make(case, args):
    """Makes one model; returns its path."""
    whole = os.path.join(args.outdir, case.file)
    for part, content in case.make(args.small).items():
        write_part(whole + part, content, args)
    return whole.rstrip('/')


def run(args):
    if args.list:
        for name, case in MODELS.items():
            print('%-30s %-40s %-60s %s' % (name, case.file, ' '.join(str(v) for v in case.expected.values()), case.source))
        return 0
    unknown = [name for name in args.names if name not in MODELS]
    if unknown or not args.outdir:
        print('make_models.py: ' + ('no such model: %s (--list shows all)' % ', '.join(unknown) if unknown
                                    else 'give a folder to write to'), file=sys.stderr)
        return 2
    expected = {}
    for case in [MODELS[name] for name in args.names] or MODELS.values():
        path = make(case, args)
        expected[path] = dict(case.expected, given=case.given) if case.given else case.expected
    if args.expected:
        with open(args.expected, 'w') as out:
            json.dump(expected, out, indent=1)
    return 0


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('outdir', nargs='?', metavar='OUTDIR')
    parser.add_argument('names', nargs='*', metavar='NAME')
    parser.add_argument('--list', action='store_true', help='show what can be made')
    parser.add_argument('--small', action='store_true', help='small networks with the telling shapes')
    parser.add_argument('--random', action='store_true', help='numbers instead of holes')
    parser.add_argument('--shuffle', type=int, metavar='SEED', help='tensors in another order')
    parser.add_argument('--expected', metavar='FILE', help='write what identification has to say')
    sys.exit(run(parser.parse_args()))
