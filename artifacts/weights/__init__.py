"""A model's files, from where they are kept to a folder: the hub, or an image of a registry; and into such an image.

What both images and the command line share. Knows neither torch nor Kubernetes nor what the files are for.
"""
