"""The embedded model server: llama.cpp behind an OpenAI-compatible port, as a child process.

Run as `python -m lib.embedded`; it prints one JSON line with its address and serves until its
standard input closes, so it cannot outlive the process that started it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys

__all__ = ["main"]


def main() -> None:
    """Serve one GGUF file on loopback until standard input closes."""
    cli = argparse.ArgumentParser()
    cli.add_argument("gguf")
    cli.add_argument("--threads", type=int, required=True)
    cli.add_argument("--port", type=int, default=0)
    cli.add_argument("--alias", required=True)
    cli.add_argument("--template", default="")
    cli.add_argument("--context", type=int, default=2048)
    args = cli.parse_args()

    # Threads that wait asleep, not spinning: with one other busy process on two cores a request
    # took 0.19 s instead of 0.33 s (0.15 instead of 0.10 s on an idle machine).
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")

    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = args.gguf
    params.model_alias = {args.alias}
    params.hostnames = ["127.0.0.1"]
    params.port = args.port
    params.n_ctx = args.context
    params.n_parallel = 1
    # Whole prompts kept from earlier probes would make a repeated item look faster than a new one.
    params.cache_ram_mib = 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = args.threads
    params.use_jinja = True
    params.ui = False
    if args.template:
        params.chat_template = args.template
    server = xllamacpp.Server(params)
    sys.stdout.write(json.dumps({"address": server.listening_address}) + "\n")
    sys.stdout.flush()
    while sys.stdin.buffer.read(4096):
        pass
    # The server's own shutdown can wait for clients; the parent is gone, so leave at once.
    os._exit(0)


if __name__ == "__main__":
    main()
