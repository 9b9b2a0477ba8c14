"""Reading manifests out of a clone's history."""

import subprocess

import pytest

from tests.conformance import corpus

SERVE = "apiVersion: kaito.sh/v1beta1\nkind: Workspace\nmetadata: {name: serve}\nresource: {}\n"
TUNE = SERVE.replace("serve", "tune")
CONFIG = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: config}\n"


@pytest.fixture
def clone(tmp_path):
    class Clone:
        git = tmp_path / ".git"

        def run(self, *arguments):
            identity = ["-c", "user.name=test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false"]
            subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

        def release(self, tag, files):
            self.run("rm", "-r", "-q", "--ignore-unmatch", ".")
            for path, text in files.items():
                (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / path).write_text(text)
            self.run("add", "-A")
            self.run("commit", "-q", "--allow-empty", "-m", tag)
            self.run("tag", tag)

    made = Clone()
    made.run("init", "-q")
    return made


def names(read):
    return sorted((one.body["metadata"]["name"], one.span) for one in read.manifests)


def test_a_file_of_several_objects_gives_each_workspace_and_counts_the_rest(clone):
    clone.release("v0.1.0", {"examples/a.yaml": f"{SERVE}---\n{CONFIG}---\n{TUNE}", "hack/b.yaml": TUNE})
    read = corpus.read(clone.git)
    assert names(read) == [("serve", "v0.1.0..HEAD"), ("tune", "v0.1.0..HEAD")]
    assert read.others == {"ConfigMap": 1}


def test_settings_for_a_workspace_come_along(clone):
    settings = f"{CONFIG}data: {{inference_config.yaml: 'vllm: {{}}'}}\n"
    clone.release("v0.5.0", {"examples/a.yaml": f"{SERVE}---\n{settings}"})
    assert [name for name, _ in names(corpus.read(clone.git))] == ["config", "serve"]


def test_the_same_content_is_one_manifest_whatever_its_comments_and_its_path(clone):
    clone.release("v0.1.0", {"examples/old.yaml": f"# old\n{SERVE}"})
    clone.release("v0.2.0", {"examples/new/a.yaml": SERVE})
    (one,) = corpus.read(clone.git).manifests
    assert (one.path, one.span) == ("examples/new/a.yaml", "v0.1.0..HEAD")


def test_releases_are_in_the_order_of_their_numbers(clone):
    clone.release("v0.10.0", {"examples/a.yaml": SERVE})
    for tag in ("v0.9.4", "v0.10.0-rc.0", "not-a-release"):
        clone.run("tag", tag)
    clone.release("v0.11.0", {})
    (one,) = corpus.read(clone.git).manifests
    assert one.tags == ("v0.9.4", "v0.10.0-rc.0", "v0.10.0")


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(SERVE, id="plain"),
        pytest.param(f"cat <<EOF | kubectl apply -f -\n{SERVE}EOF\n", id="here-document"),
        pytest.param(f"$ cat serve.yaml\n{SERVE}\n$ kubectl apply -f serve.yaml\n", id="session"),
    ],
)
def test_manuals_are_read_too(clone, block):
    fenced = f"Text, then:\n\n```yaml\n{block}```\n\nand a command:\n\n```sh\nkubectl get pods: all\n```\n"
    indented = "".join(f"  {line}\n" for line in fenced.replace("serve", "indented").splitlines())
    clone.release("v0.5.0", {"website/docs/a.md": fenced, "docs/b.mdx": indented, "docs/proposals/c.md": fenced})
    assert [name for name, _ in names(corpus.read(clone.git))] == ["indented", "serve"]


def test_what_is_no_whole_manifest_is_told(clone):
    fragment = "apiVersion: kaito.sh/v1beta1\nkind: Workspace\nmetadata: {annotations: {a: b}}\n"
    clone.release("v0.5.0", {"examples/a.yaml": fragment, "examples/b.yaml": "a: b: c\n"})
    read = corpus.read(clone.git)
    assert (read.manifests, read.fragments) == ((), 1)
    assert read.unreadable[0].startswith("examples/b.yaml: ")
