"""Container images as folders, for both images of ours: asked for with skopeo, unpacked from hands nobody vouches for.

Knows registries and archives, neither what is in an image nor which field of a Workspace named it.
"""
