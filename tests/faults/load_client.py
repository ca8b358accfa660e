#!/usr/bin/python3
"""A client of the soak (test_load_soak.py): load_client.py SOCKET. Takes one JSON array a line, answers one JSON object a line.

["load", KEY] locks a model, attaches, maps it and answers the sums of its tensors; ["check", N] sums what it holds as number N again;
["free", N] lets go of it.
"""
import hashlib
import json
import mmap
import os
import socket
import struct
import sys

import msgpack

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(TESTS, "wire"))

from outsider import Client, LadeError  # noqa: E402


def attach(result):
    """(connection, mapping): the segment, for as long as the connection is open."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.connect(result["segment"]["attach"])
    connection.send(result["lease"].encode())
    answer, fds, _, _ = socket.recv_fds(connection, 1024, 4)
    if not fds:
        connection.close()
        raise ConnectionError(answer.decode())
    data = mmap.mmap(fds[0], 0, prot=mmap.PROT_READ)
    os.close(fds[0])
    return connection, data


def sums(data):
    _, _, index_at, index_len, _, generation = struct.unpack_from("<8s5Q", data)
    index = msgpack.unpackb(data[index_at:index_at + index_len])
    found = {tensor["name"]: hashlib.sha256(data[tensor["offset"]:tensor["offset"] + tensor["size"]]).hexdigest()
             for tensor in index["tensors"]}
    return {"key": index["key"], "generation": generation, "sums": found}


def load(client, held, key):
    for _ in range(50):  # a worker that dies between answer and attachment takes its lease along
        try:
            result = client.call("load", "lock", key=key, pid=os.getpid(), timeout_s=60)
            connection, data = attach(result)
        except LadeError as error:
            return {"error": error.code, "message": str(error)}
        except OSError:
            continue
        number = max(held, default=0) + 1
        held[number] = (connection, data)
        return {"number": number, "id": result["segment"]["id"], **sums(data)}
    return {"error": "tired"}


def main():
    client, held = Client(sys.argv[1]), {}
    for line in sys.stdin:
        word, what = json.loads(line)
        if word == "load":
            answer = load(client, held, what)
        elif word == "check":
            answer = sums(held[what][1])
        else:
            connection, data = held.pop(what)
            data.close()
            connection.close()
            answer = {}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
