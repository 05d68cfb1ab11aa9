"""The embedded model server: llama.cpp behind an OpenAI-compatible port, as a child process.

`python model_server.py GGUF NAME TEMPLATE THREADS PORT CONTEXT` prints its address and serves until
its standard input closes. An empty template is the file's own, port 0 a free one.
"""

import os
import sys


def main() -> None:
    """Serve one GGUF file on loopback until standard input closes."""
    path, name, template, threads, port, context = sys.argv[1:]

    # Threads that wait asleep, not spinning: with one other busy process on two cores a request
    # took 0.19 s instead of 0.33 s (0.15 instead of 0.10 s on an idle machine).
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")

    import xllamacpp  # reads that policy as it is loaded

    params = xllamacpp.CommonParams()
    params.model.path = path
    params.model_alias = {name}
    params.hostnames = ["127.0.0.1"]
    params.port = int(port)
    params.n_parallel = 1  # which share the context
    params.n_ctx = int(context)
    # Whole prompts kept from earlier probes would make a repeated item look faster than a new one.
    params.cache_ram_mib = 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = int(threads)
    params.use_jinja = True
    params.ui = False
    if template:
        params.chat_template = template
    server = xllamacpp.Server(params)  # returns once the model is loaded
    sys.stdout.write(f"{server.listening_address}\n")
    sys.stdout.flush()
    sys.stdin.buffer.read()
    # The server's own shutdown can wait for clients; the parent is gone, so leave at once.
    os._exit(0)


if __name__ == "__main__":
    main()
