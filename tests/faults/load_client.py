#!/usr/bin/python3
"""A client of the soak (test_load_soak.py): load_client.py SOCKET. Takes one JSON array a line, answers one JSON object a line.

["load", [KEY, HOW]] locks a model, attaches, maps it and answers the sums of its tensors; HOW has dtype and layout. ["check", N] sums
what it holds as number N again, ["free", N] lets go of it. ["lease", [KEY, HOW]] locks and does not attach, ["unlock", N] ends that.
["unload", KEY] drops a model that nobody has locked.
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
    """(connection, mapping, inode): the segment, for as long as the connection is open."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.connect(result["segment"]["attach"])
    connection.send(result["lease"].encode())
    answer, fds, _, _ = socket.recv_fds(connection, 1024, 4)
    if not fds:
        connection.close()
        raise ConnectionError(answer.decode())
    data = mmap.mmap(fds[0], 0, prot=mmap.PROT_READ)
    inode = os.fstat(fds[0]).st_ino
    os.close(fds[0])
    return connection, data, inode


def sums(data):
    _, _, index_at, index_len, _, generation = struct.unpack_from("<8s5Q", data)
    index = msgpack.unpackb(data[index_at:index_at + index_len])
    found = {tensor["name"]: [tensor["dtype"], hashlib.sha256(data[tensor["offset"]:tensor["offset"] + tensor["size"]]).hexdigest()]
             for tensor in index["tensors"]}
    return {"key": index["key"], "generation": generation, "sums": found}


def hold(held, *what):
    number = max(held, default=0) + 1
    held[number] = what
    return number


def load(client, held, what):
    key, how = what
    for _ in range(50):  # a worker that dies between answer and attachment takes its lease along
        try:
            result = client.call("load", "lock", key=key, pid=os.getpid(), timeout_s=60, **how)
            connection, data, inode = attach(result)
        except OSError:
            continue
        return {"number": hold(held, connection, data), "id": result["segment"]["id"], "inode": inode, **sums(data)}
    return {"error": "tired"}


def check(_, held, number):
    return sums(held[number][1])


def free(_, held, number):
    connection, data = held.pop(number)
    data.close()
    connection.close()
    return {}


def lease(client, held, what):
    key, how = what
    result = client.call("load", "lock", key=key, pid=os.getpid(), timeout_s=60, **how)
    return {"number": hold(held, result["lease"]), "id": result["segment"]["id"]}


def unlock(client, held, number):
    (text,) = held.pop(number)
    return {"answer": client.call("load", "unlock", lease=text, timeout_s=60)}


def unload(client, _, key):
    return client.call("load", "unload", key=key, timeout_s=60)


WORDS = {"load": load, "check": check, "free": free, "lease": lease, "unlock": unlock, "unload": unload}


def main():
    client, held = Client(sys.argv[1]), {}
    for line in sys.stdin:
        word, what = json.loads(line)
        try:
            answer = WORDS[word](client, held, what)
        except LadeError as error:
            answer = {"error": error.code, "message": str(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
