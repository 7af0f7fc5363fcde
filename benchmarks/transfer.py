"""Uploads and downloads against what a user would pick instead, on loopback and on a link as object stores have it.

    python benchmarks/transfer.py [--size MIB] [--rounds N] [--rate MB/s] [--round-trip MS] [--only NAME]

Clients take turns, round by round; what is printed are medians, and ratios to ours from the same run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from remote_ckpt.testing.servers import Server, start

MIB = 1 << 20
HERE = Path(__file__).parent
S3_CLIENTS = ("ours", "s3fs", "boto3", "boto3 16 MiB x 10", "obstore", "s5cmd")
GCS_CLIENTS = ("ours", "gcsfs")


@contextmanager
def shaped(server: Server, rate: float | None, round_trip: float) -> Iterator[str]:
    """Yield the server's endpoint behind a shaped link; its own where `rate` is None."""
    if rate is None:
        yield server.endpoint
        return
    command = [sys.executable, str(HERE / "shaping.py"), server.endpoint.partition("//")[2], str(rate), str(round_trip)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as proxy:
        assert proxy.stdout is not None
        yield f"http://127.0.0.1:{int(proxy.stdout.readline())}"


def transfer(server: Server, endpoint: str, client: str, direction: str, **task: Any) -> dict[str, float]:
    """Run one transfer in a process of its own."""
    options = {**server.storage_options, "endpoint_url": endpoint}
    task |= {"protocol": server.protocol, "bucket": server.bucket, "options": options}
    command = [sys.executable, str(HERE / "clients.py"), client, direction, json.dumps(task)]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=600, env=environment)
    outcome: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return outcome


def make_file(path: Path, size: int) -> None:
    """Write incompressible bytes, different in every MiB."""
    noise = os.urandom(MIB - 8)
    with path.open("wb") as file:
        for number in range(size // MIB):
            file.write(number.to_bytes(8, "big") + noise)


def compare(server: Server, endpoint: str, clients: tuple[str, ...], size: int, rounds: int, folder: Path) -> None:
    """Let the clients take turns, both ways, and print a table."""
    source, target = folder / "source", folder / "target"
    make_file(source, size)
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    for number in range(-1, rounds):  # the first round warms up the server, and does not count
        for client in (*clients[number % len(clients) :], *clients[: number % len(clients)]):
            place = {"run": f"bench/{uuid.uuid4().hex}", "key": "w.h5", "size": size}
            up = transfer(server, endpoint, client, "up", file=str(source), **place)
            down = transfer(server, endpoint, client, "down", file=str(target), **place)
            target.unlink()
            if number >= 0:
                found.setdefault((client, "up"), []).append(up)
                found.setdefault((client, "down"), []).append(down)
    for direction in ("up", "down"):
        ours = statistics.median(one["seconds"] for one in found["ours", direction])
        print(f"\n| {direction} | MiB/s | ours is faster by | processor s/GB | memory grew, MiB |")
        print("| --- | --- | --- | --- | --- |")
        for client in clients:
            runs = found[client, direction]
            seconds, cpu, grew = (statistics.median(one[name] for one in runs) for name in ("seconds", "cpu", "grew"))
            print(
                f"| {client} | {size / MIB / seconds:.0f} | {seconds / ours:.2f} | {cpu / size * 1e9:.2f} "
                f"| {grew / MIB:.0f} |",
                flush=True,
            )


def delta(server: Server, endpoint: str, size: int, folder: Path) -> None:
    """Upload a checkpoint of which 95 % is frozen, against s3fs, which sends it all."""
    first, second = folder / "source", folder / "second"
    make_file(first, size)
    data = bytearray(first.read_bytes())
    changed = size // 20
    data[-changed:] = os.urandom(changed)
    second.write_bytes(data)
    run = f"bench/{uuid.uuid4().hex}"
    transfer(server, endpoint, "ours", "up", file=str(first), run=run, key="1.h5", size=size)
    task = {"file": str(second), "run": run, "size": size}
    ours = transfer(server, endpoint, "ours", "up", key="2.h5", base_key="1.h5", base_file=str(first), **task)
    theirs = transfer(server, endpoint, "s3fs", "up", key="3.h5", **task)
    print(
        f"\n95 % frozen, {size // MIB} MiB, {server.name}: {100 * ours['sent'] / size:.1f} % of the bytes sent, "
        f"durable {theirs['seconds'] / ours['seconds']:.1f} times sooner than by s3fs"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256, help="MiB")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rate", type=float, default=8.0, help="MB/s a connection on the shaped link")
    parser.add_argument("--round-trip", type=float, default=20.0, help="ms on the shaped link")
    parser.add_argument("--only", choices=["s3 shaped", "s3 loopback", "gcs shaped", "gcs loopback", "delta"])
    chosen = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {chosen.size} MiB")
    link = (chosen.rate * 1e6, chosen.round_trip / 1e3)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for server_name, label, clients in (("seaweedfs", "s3", S3_CLIENTS), ("fake_gcs", "gcs", GCS_CLIENTS)):
            for kind, rate in (("shaped", link[0]), ("loopback", None)):
                if chosen.only in (None, f"{label} {kind}"):
                    print(f"\n## {label}, {kind}")
                    with start(server_name) as server, shaped(server, rate, link[1]) as endpoint:
                        compare(server, endpoint, clients, chosen.size * MIB, chosen.rounds, folder)
        if chosen.only in (None, "delta"):
            for server_name in ("seaweedfs", "localstack"):  # one copies over its own network, the other in memory
                with start(server_name) as server, shaped(server, *link) as endpoint:
                    delta(server, endpoint, chosen.size * MIB, folder)


if __name__ == "__main__":
    main()
