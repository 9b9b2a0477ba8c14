"""Azure: agent pools of one AKS cluster that become real nodes, and the tokens that are needed to ask for them.

    python -m tests.cluster.simulators.azure --listen 10.240.0.12:443 --cert F --key F --state DIR --kubeconfig F \\
        --cluster NAME

One listener is both management.azure.com and login.microsoftonline.com; Host decides. A projected service account token
of the cluster NAME is exchanged for a bearer token if its subject is federated (--federated-subject, may be repeated;
system:serviceaccount:kaito-hera:kaito-hera-steps unless given). An accepted pool boots its nodes as
aks-POOL-12345678-vmss000000 and so on, is Succeeded when they are Ready, and 404 when all are removed.

The operator's settings must name these ids; options of the same names change them:

    tenant          00000000-0000-4000-8000-00000000000a        resource-group  kaito-hera
    client          00000000-0000-4000-8000-00000000000b        aks             kaito-hera
    subscription    00000000-0000-4000-8000-00000000000c        location        eastus

DIR holds everything, so the simulator may be killed at any time; started again it finishes what it had accepted:

    pools/NAME.json           each pool with its machines and operations
    requests.jsonl            a line a request: time, method, host, path, status, seconds
    scenarios/NAME.json       for tests to write: what goes wrong, see scenarios.py
    limits.json               for tests to write: quota, capacity and so on, see scenarios.py

    entra.py      login.microsoftonline.com               fleet.py     boots and removes, a thread a pool
    arm.py        management.azure.com                    pools.py     what a pool is and what it needs next
    agent_pools.py, compute.py    its resources           machines.py  the way to the cluster's nodes

Not simulated: upgrades, autoscaling, deleteMachines, changing taints, System pools other than nodepool1.
"""
