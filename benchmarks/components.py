"""What a delta on GCS would save: components of an earlier upload kept and composed again, against sending everything.

    python benchmarks/components.py [--size MIB] [--rounds N]

On the link of `transfer.py` (8 MB/s a connection, 20 ms), with 95 % of the object unchanged.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import requests
from transfer import MIB, make_file, shaped, transfer

from remote_ckpt.testing.servers import start

KEPT = 31  # components; compose takes 32
SENT = 3


class Bucket:
    """The two requests of GCS's JSON API that a delta needs."""

    def __init__(self, endpoint: str, name: str) -> None:
        self._put = f"{endpoint}/upload/storage/v1/b/{name}/o?uploadType=media&name="
        self._objects = f"{endpoint}/storage/v1/b/{name}/o/"

    def put(self, name: str, data: bytes) -> None:
        """Upload one object in one request."""
        requests.post(self._put + name, data=data, timeout=600).raise_for_status()

    def compose(self, target: str, sources: list[str]) -> None:
        """Make one object of several."""
        body = {"sourceObjects": [{"name": name} for name in sources], "destination": {}}
        requests.post(f"{self._objects}{target}/compose", json=body, timeout=600).raise_for_status()


def cut(data: bytes, count: int) -> list[bytes]:
    size = -(-len(data) // count)
    return [data[start : start + size] for start in range(0, len(data), size)]


def put_all(bucket: Bucket, prefix: str, pieces: list[bytes]) -> list[str]:
    names = [f"{prefix}{number}" for number in range(len(pieces))]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(bucket.put, names, pieces))
    return names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256, help="MiB")
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    size = chosen.size * MIB
    found: dict[str, list[float]] = {"components": [], "ours": [], "gcsfs": []}
    with tempfile.TemporaryDirectory() as folder, start("fake_gcs") as server, shaped(server, 8e6, 0.02) as endpoint:
        source = Path(folder) / "source"
        make_file(source, size)
        bucket = Bucket(endpoint, server.bucket)
        kept = put_all(bucket, "kept", cut(source.read_bytes()[: size - size // 20], KEPT))
        for _ in range(chosen.rounds):
            begun = time.perf_counter()
            bucket.compose("sent", put_all(bucket, "sent", cut(os.urandom(size // 20), SENT)))
            bucket.compose("whole", [*kept, "sent"])
            found["components"].append(time.perf_counter() - begun)
            for client in ("ours", "gcsfs"):
                place = {"run": f"bench/{uuid.uuid4().hex}", "key": "w.h5", "size": size}
                found[client].append(transfer(server, endpoint, client, "up", file=str(source), **place)["seconds"])
    for name, seconds in found.items():
        print(f"{name:10}  {statistics.median(seconds):.2f} s")


if __name__ == "__main__":
    main()
