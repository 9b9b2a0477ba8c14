"""The HTTP interfaces, one module each; all of them speak to an engine through `serving.service`."""
