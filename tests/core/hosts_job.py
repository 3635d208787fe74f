"""One of two processes under `jax.distributed`: `python hosts_job.py PROCESS PORT FOLDER`."""

import json
import sys

import jax

if __name__ == "__main__":
    number, port, folder = sys.argv[1:]
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=2, process_id=int(number))  # before any computation
    import devices_job

    print(json.dumps(devices_job.hosts(folder)))
