"""What is fetched and pushed: images as folders, a model's files. Shared by both images and the command line.

Knows registries and the model hub; neither torch, nor Kubernetes, nor what the files are for.
"""
