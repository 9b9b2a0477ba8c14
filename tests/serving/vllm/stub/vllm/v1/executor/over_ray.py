"""Workers as vLLM's executor over Ray has them: one GPU each, asked for by a process that is none of Ray's own.

They hold nothing: what they show is that Ray reaches every node, that each GPU of each node can be had, and that the
process that asks is let in.
"""

import multiprocessing

SECONDS = 300


def started(count, nodes):
    """The process that holds `count` workers on so many nodes; raises RuntimeError."""
    ours, theirs = multiprocessing.Pipe()
    holds = multiprocessing.get_context("spawn").Process(target=_hold, args=(theirs, count), daemon=True)
    holds.start()
    theirs.close()
    try:
        found = ours.recv() if ours.poll(SECONDS) else f"no {count} GPUs within {SECONDS} s"
    except EOFError:
        found = "the process that asks for GPUs has ended"
    if not isinstance(found, list) or len(set(found)) != nodes:
        holds.kill()
        raise RuntimeError(f"{count} workers are not on {nodes} nodes: {found}")
    print(f"{count} workers on {nodes} nodes", flush=True)
    return holds, ours


def _hold(pipe, count):
    import ray

    ray.init(address=None)  # of the environment, as vLLM's engine process finds it

    @ray.remote(num_cpus=0, num_gpus=1)
    class Worker:
        def where(self):
            return ray.get_runtime_context().get_node_id()

    own = ray.get_runtime_context().get_node_id()
    address = next(each["NodeManagerAddress"] for each in ray.nodes() if each["NodeID"] == own)
    bundles = [{"GPU": 1, f"node:{address}": 0.001}, *({"GPU": 1} for _ in range(count - 1))]
    group = ray.util.placement_group(bundles, strategy="PACK")
    ray.get(group.ready())
    workers = [Worker.options(placement_group=group, placement_group_bundle_index=at).remote() for at in range(count)]
    pipe.send(ray.get([worker.where.remote() for worker in workers]))
    pipe.poll(None)  # until the engine has gone
