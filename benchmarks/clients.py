"""One transfer by one client, in a process of its own: so that processor time and memory are its own.

    python benchmarks/clients.py CLIENT up|down JSON

prints seconds, processor seconds and peak memory as JSON. Importing and making the client is not counted, nor is one
small request that each makes first, except s5cmd, which is a program of its own.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

MIB = 1 << 20
Step = Callable[[], Any]


def ours(task: dict[str, Any]) -> tuple[Step, Step]:
    from remote_ckpt.digests import digest_file
    from remote_ckpt.location import Location
    from remote_ckpt.stores import DeltaBase, MemoryJournal, TransferReport, open_store

    store = open_store(Location.parse(f"{task['protocol']}://{task['bucket']}/{task['run']}"), task["options"])
    file = Path(task["file"])
    digests = digest_file(file, blocks=True) if file.exists() else None  # taken while a checkpoint is sealed
    base = None
    if task.get("base_file"):
        base = DeltaBase(task["base_key"], digest_file(Path(task["base_file"]), blocks=True))
    store.probe()  # once per bucket and month, when a writer opens
    with suppress(FileNotFoundError):
        store.stat("nothing")
    report = TransferReport()

    def up() -> dict[str, int]:
        assert digests is not None
        store.upload(task["key"], file, digests=digests, journal=MemoryJournal(), report=report, base=base)
        return {"sent": report.sent, "reused": report.reused}

    return up, lambda: store.fetch(task["key"], file, size=task["size"])


def fsspec_defaults(task: dict[str, Any]) -> tuple[Step, Step]:
    import fsspec

    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # else it waits a minute for an emulator
    fs = fsspec.filesystem(task["protocol"], **task["options"])
    path = f"{task['bucket']}/{task['run']}/{task['key']}"
    fs.exists(f"{path}-nothing")
    return lambda: fs.put_file(task["file"], path), lambda: fs.get_file(path, task["file"])


def boto3_with(config: dict[str, Any]) -> Callable[[dict[str, Any]], tuple[Step, Step]]:
    def make(task: dict[str, Any]) -> tuple[Step, Step]:
        import boto3
        from boto3.s3.transfer import TransferConfig

        options = task["options"]
        client = boto3.client(
            "s3",
            endpoint_url=options["endpoint_url"],
            aws_access_key_id=options["key"],
            aws_secret_access_key=options["secret"],
            region_name="us-east-1",
        )
        client.list_objects_v2(Bucket=task["bucket"], MaxKeys=1)
        settings = TransferConfig(**config)
        place = (task["bucket"], f"{task['run']}/{task['key']}")
        return (
            lambda: client.upload_file(task["file"], *place, Config=settings),
            lambda: client.download_file(*place, task["file"], Config=settings),
        )

    return make


def obstore(task: dict[str, Any]) -> tuple[Step, Step]:
    import obstore
    from obstore.store import S3Store

    options = task["options"]
    store = S3Store(
        task["bucket"],
        endpoint=options["endpoint_url"],
        access_key_id=options["key"],
        secret_access_key=options["secret"],
        region="us-east-1",
        client_options={"allow_http": True},
    )
    path = f"{task['run']}/{task['key']}"
    obstore.list(store, f"{path}-nothing").collect()

    def down() -> None:
        with Path(task["file"]).open("wb") as file:
            for chunk in obstore.get(store, path).stream(min_chunk_size=8 * MIB):
                file.write(chunk)

    def up() -> None:
        obstore.put(store, path, Path(task["file"]), chunk_size=16 * MIB, max_concurrency=10)

    return up, down


def s5cmd(task: dict[str, Any]) -> tuple[Step, Step]:
    options = task["options"]
    environment = {**os.environ, "AWS_ACCESS_KEY_ID": options["key"], "AWS_SECRET_ACCESS_KEY": options["secret"]}
    environment["AWS_REGION"] = "us-east-1"
    command = [str(Path(sys.executable).with_name("s5cmd")), "--endpoint-url", options["endpoint_url"], "cp"]
    command += ["-c", "10", "-p", "16"]
    url = f"s3://{task['bucket']}/{task['run']}/{task['key']}"

    def run(source: str, target: str) -> None:
        subprocess.run([*command, source, target], env=environment, check=True, stdout=subprocess.DEVNULL)

    return lambda: run(task["file"], url), lambda: run(url, task["file"])


CLIENTS: dict[str, Callable[[dict[str, Any]], tuple[Step, Step]]] = {
    "ours": ours,
    "s3fs": fsspec_defaults,
    "gcsfs": fsspec_defaults,
    "boto3": boto3_with({}),
    "boto3 16 MiB x 10": boto3_with({"multipart_chunksize": 16 * MIB, "max_concurrency": 10}),
    "obstore": obstore,
    "s5cmd": s5cmd,
}


def warm_memory(beside: Path, size: int) -> None:
    """Fill and free as much of the machine's memory as the file takes, so that each client finds it at hand.

    A virtual machine gives memory that is free for two seconds back to its host, and a page that comes again costs
    2 ms for each MiB (seen here; Linux calls it free page reporting): more than the transfer. Without this, a client
    that wasted memory in its upload a moment ago seems twice as fast as one that did not.
    """
    path = beside.with_name("warm")
    with path.open("wb") as file:
        for _ in range(size // MIB):
            file.write(bytes(MIB))
    path.unlink()


def processor_seconds() -> float:
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def main() -> None:
    name, direction, task = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    up, down = CLIENTS[name](task)
    warm_memory(Path(task["file"]), task["size"])
    idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    used, start = processor_seconds(), time.perf_counter()
    told = up() if direction == "up" else down()
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcome = {"seconds": seconds, "cpu": processor_seconds() - used, "grew": (peak - idle) << 10}
    print(json.dumps(outcome | (told if isinstance(told, dict) else {})), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
