"""The contract of docs/tables.md, written down a second time and as plainly as possible: sort all
visits, then deal out ranks. Prints the vectors of golden.rs. Not part of the build; run
`python3 reference.py` to check the vectors or to make new ones with a new TABLE_VERSION."""

import collections
import math
import socket
import struct

MASK = (1 << 64) - 1


def mix(x):
    x ^= x >> 33
    x = x * 0xFF51AFD7ED558CCD & MASK
    x ^= x >> 33
    x = x * 0xC4CEB9FE1A85EC53 & MASK
    return x ^ x >> 33


def chain(h, words):
    for word in words:
        h = mix(h ^ word)
    return h


def octets(address):
    return socket.inet_pton(socket.AF_INET6, address if ":" in address else "::ffff:" + address)


def swapped(port):
    return struct.unpack("<H", struct.pack(">H", port))[0]


def scale(h, n):
    return h * n >> 32


def visited_slots(identity, m):
    def fold(f, s):
        t = (scale(f >> 32, m) - s) % m
        return s if (max(s, t) * (f | 1) & MASK) < 1 << 63 else t

    f1 = mix(identity ^ 0x6C622D666F6C6473)
    f2 = mix(f1)
    offset, skip = scale(identity >> 32, m), scale(identity & 0xFFFFFFFF, m - 1) + 1
    return [fold(f2, fold(f1, (offset + p * skip) % m)) for p in range(m)]


def quotas(ids, weights, m):
    n, total = sum(w > 0 for w in weights), sum(weights)
    t = m + math.isqrt(n * m) * 3 * n // (2 * (n + 40))
    q = [t * w // total for w in weights]
    remainder = lambda b: t * weights[b] % total - scale(mix(ids[b]) >> 32, total)
    order = sorted((b for b in range(len(ids)) if weights[b]), key=lambda b: (-remainder(b), b))
    for b in order[: t - sum(q)]:
        q[b] += 1
    return [max(x, 1) if w else 0 for x, w in zip(q, weights)]


def table(backends, m, accepting):
    """Backends are (address, port, weight). Returns their order, the buckets, and for each slot
    the accepting backend that visits it first."""
    times = collections.Counter(b[0] for b in backends)
    counted = lambda b: swapped(b[1]) if times[b[0]] > 1 else 0
    key = lambda b: chain(IDENTITY, [*struct.unpack("<QQ", octets(b[0])), counted(b)])
    order = sorted(backends, key=lambda b: (key(b), octets(b[0]), b[1]))
    ids, weights = [key(b) for b in order], [b[2] for b in order]
    if not any(weights):
        weights = [1] * len(weights)
    heaviest = max(weights)
    visits = []
    for b, w in enumerate(weights):
        for p, slot in enumerate(visited_slots(ids[b], m)):
            late, rounds = (0, -(-(p + 1) * heaviest // w)) if w else (1, p + 1)
            visits.append((late, rounds, b, slot))
    visits.sort()
    q, owner, rest = quotas(ids, weights, m), [None] * m, [[] for _ in range(m)]
    for _, _, b, slot in visits:
        if owner[slot] is None and q[b] > 0:
            owner[slot], q[b] = b, q[b] - 1
        else:
            rest[slot].append(b)
    ranks = len(order) if len(order) <= 8 else 4
    buckets = [[owner[s], *rest[s]][:ranks] for s in range(m)]
    first = [next(b for _, _, b, slot in visits if slot == s and accepting(order[b])) for s in range(m)]
    return order, buckets, first


IDENTITY = 0x6C622D6964656E74
MASTERS = [("192.168.139.133", 6443, 2), ("192.168.139.134", 6443, 1), ("192.168.139.135", 6443, 1), ("fd00::136", 6443, 0)]
TEN = [(f"10.0.0.{i}", 80 + i, w) for i, w in enumerate([3, 1, 2, 1, 1, 0, 1, 2, 1, 7])]
TWICE = [("10.0.0.1", 80, 1), ("10.0.0.1", 81, 1), ("10.0.0.2", 80, 1)]

for name, backends, m, up in [
    ("masters", MASTERS, 17, ["192.168.139.135"]),
    ("ten", TEN, 29, ["10.0.0.3", "10.0.0.8"]),
    ("twice", TWICE, 11, ["10.0.0.2"]),
]:
    order, buckets, first = table(backends, m, lambda b: b[0] in up)
    print(name, [f"{a}:{p}" for a, p, _ in order])
    print("  buckets", buckets)
    print("  first of the accepting", first)
