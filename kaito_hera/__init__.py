"""How it is done: the Workspace, the cluster, nodes, Jobs, roll-outs, status, the watcher; no Workflow, no torch."""
