"""huggingface.co: models and data sets out of a folder, as huggingface_hub, transformers and datasets want them.

    python -m tests.cluster.simulators.hub --listen 10.240.0.2:443 --cert F --key F --content DIR

DIR is what `python -m tests.cluster.simulators.content DIR` made. Every 40-digit revision is answered with the same
files and that commit, `main` with a commit of the content's own; other names of revisions are not found.

    --gated ID       this repository's files need a token (401 GatedRepo without one, 403 with one that is not known)
    --token TOKEN    a token that is known; both options may be repeated
    --cdn HOST       send clients for large files to https://HOST, as the original does; it is this very server, so the
                     DNS name and the certificate must say so. Without it large files are answered on the spot

For tests of errors: /datasets/kaito-hera/login-page/resolve/main/data.parquet is an HTML page with status 200; what is
not there is a 404 with the original's X-Error-Code. GET /healthz says ok.
"""
