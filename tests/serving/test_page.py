"""The chat page: for browsers only, and without anything that its own policy or an air gap would stop."""

import base64
import hashlib
import re

import requests

from serving.api.page import PAGE
from tests.serving import fakes

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


def test_browsers_get_the_page_and_others_kaitos_json(tmp_path):
    with fakes.server(tmp_path, limits={"api_keys": ("k",)}) as client:
        page = requests.get(client.url + "/", headers={"Accept": BROWSER}, timeout=60)
        assert page.headers["Content-Type"].startswith("text/html")
        assert page.text == PAGE
        assert "Accept" in page.headers["Vary"]
        assert client.get("/").json() == {"message": "Server is running"}


def test_its_policy_admits_its_own_script_and_style_and_nothing_else(tmp_path):
    with fakes.server(tmp_path) as client:
        page = requests.get(client.url + "/", headers={"Accept": BROWSER}, timeout=60)
    policy = dict(each.strip().split(" ", 1) for each in page.headers["Content-Security-Policy"].split(";"))
    for tag in ("script", "style"):
        content = page.text.split(f"<{tag}>")[1].split(f"</{tag}>")[0]
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert policy[f"{tag}-src"] == f"'sha256-{digest}'"
    assert (policy["default-src"], policy["connect-src"]) == ("'none'", "'self'")


def test_it_needs_nothing_that_the_policy_forbids_and_nothing_from_elsewhere():
    tags = re.findall(r"<[a-z][^>]*>", PAGE.split("<script>")[0])
    assert not [tag for tag in tags if re.search(r"\s(?:on\w+|style|src|href)\s*=", tag)]
    assert not re.search(r"https?://|\beval\b|innerHTML", PAGE)


def test_it_speaks_to_paths_that_are_served(tmp_path):
    with fakes.server(tmp_path) as client:
        served = client.get("/openapi.json").json()["paths"]
        assert set(re.findall(r'fetch\("([^"]+)"', PAGE)) == {"/v1/models", "/v1/chat/completions"} <= set(served)
