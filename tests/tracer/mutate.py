#!/usr/bin/env python3
"""Make many damaged captures of one, as connections of one file.

    mutate.py CAPTURE OUT COUNT SEED

Each copy has a few packets of the conversation, its own ports, and some of its bytes
changed, cut, doubled or moved.
"""

import random
import struct
import sys


def read(path):
    """Return the header of a capture of IP without a link layer, and the payloads with their sides."""
    data = open(path, "rb").read()
    packets, at = [], 24
    while at < len(data):
        size = struct.unpack_from("<I", data, at + 8)[0]
        packet = data[at + 16 : at + 16 + size]
        if size > 40:
            packets.append((packet[15] - 1, packet[40:]))
        at += 16 + size
    return data[:24], packets


def damage(payload, rng):
    """Return bytes that are damaged in one way or several."""
    b = bytearray(payload)
    for _ in range(rng.choice((1, 1, 2, 8))):
        if not b:
            break
        at = rng.randrange(len(b))
        what = rng.randrange(7)
        if what == 0:
            b[at] = rng.randrange(256)
        elif what == 1:
            b[at] ^= 1 << rng.randrange(8)
        elif what == 2:
            del b[at : at + rng.randrange(1, 40)]
        elif what == 3:
            b[at:at] = b[at : at + rng.randrange(1, 40)]
        elif what == 4:
            b[at:at] = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 20)))
        elif what == 5:  # the length, the type and what else a header says
            head = b.find(b"cru1")
            if head >= 0 and head + 24 <= len(b):
                b[head + rng.randrange(4, 24)] = rng.choice((0, 1, 2, 3, 4, 127, 128, 255))
        else:
            b[at : at + 4] = rng.choice((b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"cru1"))
    return bytes(b)


def main():
    """Write the damaged captures."""
    path, out, count, seed = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    rng = random.Random(seed)  # noqa: S311
    header, packets = read(path)
    short = [p for p in packets if len(p[1]) < 900]
    with open(out, "wb") as file:
        file.write(header)
        for n in range(count):
            start = rng.choice((0, 0, rng.randrange(len(short))))
            chosen = short[start : start + rng.randrange(1, 6)]
            seq = [1, 1]
            for side, payload in chosen:
                payload = damage(payload, rng)[:1400]
                ports = (1024 + n % 59000, 61000 + n // 59000)
                ip = struct.pack(">BBHHHBBH4B4B", 0x45, 0, 40 + len(payload), 0, 0, 64, 6, 0, 192, 0, 2, 1 + side, 192, 0, 2, 2 - side)
                tcp = struct.pack(
                    ">HHIIBBHHH", ports[side], ports[1 - side], seq[side], seq[1 - side], 0x50, 0x18, 65535, 0, 0
                )
                seq[side] += len(payload)
                packet = ip + tcp + payload
                file.write(struct.pack("<IIII", 1_800_000_000, n, len(packet), len(packet)) + packet)


if __name__ == "__main__":
    main()
