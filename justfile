# Runs with nothing activated; CI calls the same recipes. Pyright's own program is kept in the clone, not in HOME.
set shell := ["bash", "-euo", "pipefail", "-c"]
export PATH := justfile_directory() / ".venv/bin:" + env("PATH")
export PYRIGHT_PYTHON_CACHE_DIR := justfile_directory() / ".cache/pyright"
_default:
    @just --list --unsorted
# Make .venv with what develops, from its lock file, and install membridge into it.
[group("run")]
setup:
    test -x .venv/bin/python || python3 -m venv .venv
    .venv/bin/python -m pip install --quiet --require-hashes --requirement requirements-dev.lock
    .venv/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
# Start the bundled nats-server and this machine's node; Ctrl-C stops both.
[group("run")]
up *args:
    membridge up {{ args }}
# Two nodes keep one memory, through writes on both, a kill and a take-over; under a minute.
[group("run")]
demo *args:
    membridge demo {{ args }}
# Every test but those that need npm or Go; arguments go to pytest.
[group("check")]
test *args:
    python -m pytest -n 3 --dist worksteal -m "not real and not interop" {{ args }}
# The tests with the real claude-mem worker, which npm brings, and those of the console in a real browser.
[group("check")]
real *args:
    python -m tests.real.fetch && python -m tests.console.fetch && python -m tests.deploy.fetch && python -m tests.install.fetch && python -m pytest -n 2 --dist worksteal -m real {{ args }}
# The stock `nats` command line and a real MinIO, which Go builds once into .cache.
[group("check")]
interop *args:
    python -m tests.interop.fetch && python -m pytest -n 2 --dist loadscope -m interop tests/interop {{ args }}
# Three nodes under random faults, ten minutes unless told: --seconds 60 --seed 7 --store jetstream.
[group("check")]
soak *args:
    python -m tests.soak {{ args }}
# The documentation as a site, into build/site; a dead link fails.
[group("check")]
docs:
    python -m tests.docs.site
[group("check")]
lint:
    ruff format --check . && ruff check .
[group("check")]
types:
    pyright
[group("check")]
contracts:
    lint-imports && python -m pytest -q tests/unit/test_house.py tests/docs/test_house_picture.py
# Kill every operation at each of its I/O steps, and let the disk fill up there; docs/faults.md.
[group("work")]
sweep *args:
    python -m tests.faults.sweep {{ args }}
# Random histories of a writer, or of the real worker: `just real`, then --of worker-look,worker-index --seconds 600.
[group("work")]
changes *args:
    python -m tests.changes {{ args }}
# Measure against the reference programs, into docs/benchmarks.md, benchmarks-sizes.md, -tasks.md, -gateway.md and -hooks.md.
[group("work")]
bench *args:
    python -m tests.bench {{ args }} && for of in sizes tasks gateway hooks commits; do python -m tests.bench.$of; done
[group("work")]
fmt:
    ruff format . && ruff check --fix .
[group("work")]
golden:
    python -m tests.wire.golden
[group("work")]
pages:
    for page in house_picture messages_reference nats_reference asyncapi_reference; do python -m tests.docs.$page; done
    membridge config reference > docs/reference/configuration.md
compile := "uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --quiet --fork-strategy fewest" \
  + " --no-emit-index-url --no-header --no-annotate"
# What develops, then what runs: a part of it with the same versions.
[group("work")]
lock *args:
    {{ compile }} {{ args }} --extra dev --output-file requirements-dev.lock
    {{ compile }} --constraint requirements-dev.lock --output-file requirements.lock
