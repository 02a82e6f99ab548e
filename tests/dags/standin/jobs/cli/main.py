"""Write the output of a step. A test chooses a fault by `spark.app_name`, for example ``fail:train``."""

import hashlib
import json
import os
import sys
import time
from pathlib import Path
from urllib.parse import unquote

import boto3


def main():
    step, config_uri = sys.argv[1], sys.argv[3]
    run = config_uri.rpartition("/")[0]
    lake = run.rpartition("/runs/")[0]
    config = json.loads(read(config_uri))
    fault, _, faulty_step = config["spark"]["app_name"].partition(":")
    put(f"{run}/progress/{step}.json", {"step": step, "message": f"{step}: half of it done"})
    if faulty_step == step:
        inject(fault, f"{run}/progress/{step}.json")
    write_output(step, run, lake)
    put(f"{run}/stats/{step}.json", {"step": step, "pid": os.getpid()})
    sys.stdout.write(f"{step} is done\n")
    return 0


def inject(fault, progress_uri):
    if fault == "fail":
        sys.stdout.write("a line before the error\n")
        raise RuntimeError("the disk of worker 7 failed")
    if fault == "hang" and publish_first(progress_uri.replace("progress/", "hung/")):
        for second in range(120):
            put(progress_uri, {"message": f"hanging for {second} s"})
            time.sleep(1)


def publish_first(uri):
    """Create the file at `uri` and return True, or return False if it exists: a step hangs once."""
    try:
        read(uri)
    except FileNotFoundError:
        put(uri, {})
        return True
    return False


def write_output(step, run, lake):
    if step in ("tokenize", "windows", "embed"):
        kind = {"tokenize": "tokens", "windows": "windows", "embed": "embeddings"}[step]
        dataset(f"{lake}/datasets/{kind}/0123abcd", {"num_tokens": 10})
        used = json.loads(read(f"{run}/datasets.json")) if step != "tokenize" else {}
        put(f"{run}/datasets.json", {**used, kind: "0123abcd"})
        return
    dataset(f"{run}/{step}", {"num_steps": 3})
    if step == "train":
        put(f"{run}/stats/stats.json", {"valid_loss": 4.0, "unigram_loss": 5.5, "bits_per_byte": 2.25})
        write(f"{run}/stats/stats.txt", b"valid_loss 4.0\n")
        dataset(f"{run}/model", {}, "config.json", "model.safetensors", "tokenizer.json")
    if step == "generate":
        write(f"{run}/generate/generated.txt", b"The man sings.\n")
        put(f"{run}/generate/samples.jsonl", {"prompt": "The man", "text": " sings.", "tokens": [3, 1, 4, 1, 5]})


def dataset(folder, counts, *names):
    entries = []
    for name in names or ["00000.arrow"]:
        data = f"{name} of {folder}".encode()
        write(f"{folder}/{name}", data)
        entries.append({"name": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "counts": {}})
    manifest = {"kind": "stand-in", "fingerprint": "0123abcd", "files": entries, "counts": counts, "format_version": 1}
    put(f"{folder}/_manifest.json", manifest)


def put(uri, value):
    write(uri, json.dumps(value).encode())


def write(uri, data):
    if uri.startswith("s3://"):
        bucket, _, key = uri[5:].partition("/")
        boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=data)
        return
    path = Path(unquote(uri.removeprefix("file://")))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(data)
    temporary.replace(path)


def read(uri):
    if uri.startswith("s3://"):
        bucket, _, key = uri[5:].partition("/")
        return boto3.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
    return Path(unquote(uri.removeprefix("file://"))).read_bytes()


if __name__ == "__main__":
    sys.exit(main())
