"""Clients that ask as fast as they are answered, from one processor, over plain sockets."""

import asyncio
import json
import os
import statistics
import time

CLIENT_CPU = max(os.sched_getaffinity(0))


class Asked:
    """One request and what came of it."""

    def __init__(self, prompt, count):
        self.prompt, self.count = prompt, count
        self.text, self.seconds, self.first = "", 0.0, 0.0

    def body(self):
        """`count` tokens exactly, so that every server does the same work."""
        wanted = {"do_sample": False, "max_new_tokens": self.count, "min_new_tokens": self.count}
        return {"prompt": self.prompt, "return_full_text": False, "generate_kwargs": wanted}

    def streamed(self):
        return {"prompt": self.prompt, "max_tokens": self.count, "temperature": 0, "stream": True}


class Figures:
    """What a run of many came to."""

    def __init__(self, asked, seconds):
        self.tokens_per_second = sum(each.count for each in asked) / seconds
        took = sorted(each.seconds for each in asked)
        self.p95 = took[min(len(took) - 1, int(0.95 * len(took)))]
        self.ttft_p50 = statistics.median(each.first for each in asked)
        self.texts = [each.text for each in asked]


def run(port, asked, clients, *, stream=False):
    """All requests by so many clients, each of which has one request at a time."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {CLIENT_CPU})
    try:
        return asyncio.run(_run(port, asked, clients, stream=stream))
    finally:
        os.sched_setaffinity(0, before)


async def _run(port, asked, clients, *, stream):
    left = iter(asked)

    async def client():
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
        for each in left:
            await (_stream if stream else _answer)(reader, writer, each)
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return Figures(asked, time.perf_counter() - began)


async def _answer(reader, writer, each):
    began = time.perf_counter()
    send(writer, "/chat", each.body())
    status, content = await head(reader)
    body = b"".join([part async for part in content])
    assert status == 200, body
    each.seconds, each.text = time.perf_counter() - began, json.loads(body)["Result"]


async def _stream(reader, writer, each):
    began = time.perf_counter()
    send(writer, "/v1/completions", each.streamed())
    status, content = await head(reader)
    parts = []
    async for part in content:
        each.first = each.first or time.perf_counter() - began
        parts.append(part)
    assert status == 200, parts
    assert b"[DONE]" in b"".join(parts[-2:]), parts
    each.seconds = time.perf_counter() - began


def send(writer, path, body):
    """Ask."""
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {len(content)}"
    writer.write(head.encode() + b"\r\n\r\n" + content)


async def head(reader):
    """The status, and the body part by part as it comes."""
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines[1:] if ": " in line)
    status = int(lines[0].split()[1])
    if "content-length" in headers:
        return status, _whole(reader, int(headers["content-length"]))
    return status, _chunks(reader)


async def _whole(reader, length):
    yield await reader.readexactly(length)


async def _chunks(reader):
    while length := int(await reader.readline(), 16):
        yield await reader.readexactly(length)
        await reader.readline()
    await reader.readline()
