"""Makes inputs: samples and words of the target's language, cut, spliced and damaged. Deterministic by seed."""

from __future__ import annotations

import random
import traceback
from collections.abc import Callable
from typing import NamedTuple

MAX_INPUT = 1 << 14


class Target(NamedTuple):
    """`run` takes the bytes and returns; it may raise only `allowed`. `samples` are good inputs, `words` pieces."""

    run: Callable[[bytes], None]
    allowed: tuple[type[Exception], ...]
    samples: tuple[bytes, ...]
    words: tuple[bytes, ...]


class Failure(Exception):
    """An input that made the target do what it must not; `content` is the input."""

    def __init__(self, content: bytes, why: str) -> None:
        super().__init__(f"input {content[:400]!r}\n{why}")
        self.content = content


def fuzz(target: Target, seed: int, goes_on: Callable[[int], bool]) -> int:
    """Feed the target while `goes_on` (given the count of inputs). Returns the count. Raises Failure."""
    source = random.Random(seed)
    pool = list(target.samples)
    for content in pool:
        _feed(target, content)
    count = len(pool)
    while goes_on(count):
        content = _mutated(source, pool, target.words)
        if _feed(target, content) and len(pool) < 200:
            pool.append(content)  # what is still well formed is worth more damage
        count += 1
    return count


def _feed(target: Target, content: bytes) -> bool:
    """True when the target took it."""
    try:
        target.run(content)
    except target.allowed:
        return False
    except Exception:
        raise Failure(content, traceback.format_exc()) from None
    return True


def _mutated(source: random.Random, pool: list[bytes], words: tuple[bytes, ...]) -> bytes:
    content = bytearray(source.choice(pool))
    for _ in range(source.randint(1, 8)):
        at = source.randint(0, len(content))
        end = min(len(content), at + source.randint(0, 40))
        way = source.randrange(7)
        if way == 0 and words:
            content[at:at] = source.choice(words)
        elif way == 1 and words:
            content[at:end] = source.choice(words)
        elif way == 2:
            del content[at:end]
        elif way == 3 and content:
            content[at % len(content)] = source.randrange(256)
        elif way == 4:
            content[at:at] = content[at:end] * source.randint(1, 4)
        elif way == 5:
            other = source.choice(pool)
            begin = source.randint(0, len(other))
            content[at:end] = other[begin : begin + source.randint(0, 200)]
        elif content:
            content[at % len(content)] ^= 1 << source.randrange(8)
    return bytes(content[:MAX_INPUT])
