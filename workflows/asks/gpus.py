"""How much of its nodes a server gets: one GPU, all of a node's, or several nodes where one does not hold it. Pure."""

from kaito_hera import loads, nodes, runtimes
from kaito_hera.api import Workspace
from kaito_hera.settings import Settings
from serving.inference_config import InferenceConfig
from workflows import needs
from workflows.asks import models

Want = nodes.Want


def all_of_them(workspace: Workspace, settings: Settings, chosen: InferenceConfig, want: Want | None) -> bool:
    """Whether the server works with all GPUs of the nodes that are wanted, as far as they are known.

    vLLM divides each layer, which is faster, where it can; our engine lays layers onto several only where it must. A
    model whose numbers are not known may need it, and uses one alone where that holds it.
    """
    runtime, model = runtimes.of(workspace, settings), models.known(workspace)
    vllm = runtime == "vllm"
    if want is None or want.size is None or want.gpus == 1 or want.device != nodes.GPU:
        return vllm
    if model is None:
        return True
    demand = loads.serve(needs.as_loaded(model, chosen, runtime), needs.served(workspace, chosen, runtime))
    if vllm:
        return demand.most(want.gpus) > 1
    return demand.taken(want.size.gib_per_gpu * want.size.usable, want.gpus) > 1


def over_nodes(workspace: Workspace, settings: Settings, chosen: InferenceConfig, want: Want | None) -> int:
    """How many nodes hold one model together; 1 where each of them has a server of its own."""
    runtime = runtimes.of(workspace, settings)
    if want is None or want.size is None or want.device != nodes.GPU or runtimes.nodes(workspace, runtime) == 1:
        return 1
    found = needs.demands(workspace, models.known(workspace), None, chosen, runtime)
    return found[-1].over_nodes(want.size.gib_per_gpu * want.size.usable, want.gpus) if found else 1
