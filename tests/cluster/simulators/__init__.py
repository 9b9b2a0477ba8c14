"""The world outside the cluster, simulated by name: what huggingface.co and Azure are to the product, in a few files.

The product has no test hook. The cluster's DNS sends the names here, the certificates are of the cluster's own CA, and
the clients are the real ones (huggingface_hub, datasets, azure-identity, azure-mgmt-containerservice).

    web.py       an HTTPS server: threads, keep-alive, HEAD, Range
    hub.py       huggingface.co                  content/   what it serves, made on the spot
    azure/       management.azure.com and login.microsoftonline.com; agent pools become real nodes
"""
