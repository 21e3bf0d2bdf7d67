# `make` alone shows what there is. Everything that is installed goes into .tools/ and target/, which git ignores; only `test`, as root, installs
# packages where they are missing: debootstrap, and chromium with chromium-driver.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

export PATH := $(CURDIR)/.tools/bin:$(PATH)

HOST := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
# The tests always use the pinned server. The product looks for MOZART_NATS_SERVER, then PATH, then .tools/.
TEST_ENV := MOZART_NATS_SERVER='$(CURDIR)/.tools/nats-server' MOZART_TEST_SHIM='$(CURDIR)/target/$(HOST)/debug/mozart-shim'

# Static: it runs in any container, also FROM scratch. With --target the flags stay away from build scripts and macros.
STATIC := RUSTFLAGS='-Ctarget-feature=+crt-static' cargo build --target $(HOST)
# A shim at a fixed address has nothing to relocate when it starts. Its tables stay pages of the file, which all shims share: 0.2 MiB less for each.
SHIM := RUSTFLAGS='-Ctarget-feature=+crt-static -Crelocation-model=static' cargo build --target $(HOST)

# Arguments of `make test` and `make bench`: names, filters.
ARGS ?=
# How long `make chaos` goes on, and what it starts from; `make sim` takes SEED too. Without a seed: a fresh one, printed.
SECONDS ?= 60
SEED ?=
RUNS ?=

.PHONY: help
help: ## shows this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## nats-server 2.15.1, cargo-nextest and the stock clients of the tests into .tools/, pinned
	@scripts/setup.sh nats-server nextest clients

.PHONY: build
build: ## target/release/mozart, and beside it mozart-shim; both static
	$(STATIC) --release -p supervisor
	$(SHIM) --profile shim -p worker-shim
	@mkdir -p target/release
	@install -m 755 target/$(HOST)/release/mozart target/$(HOST)/shim/mozart-shim target/release/

.PHONY: demo
demo: ## a small fleet in 30 s: a worker is killed amid its answer, and nothing is lost
	@scripts/setup.sh nats-server
	@$(MAKE) build
	@examples/demo.sh

.PHONY: images
images: build ## the images of compose.yaml, from what is built here; .env with a password (ENGINE=podman)
	@scripts/setup.sh nats-server
	@scripts/images.sh

.PHONY: compose-demo
compose-demo: ## a fleet of containers: broker, two supervisors, a node; the supervisor that leads is killed
	@examples/compose-demo.sh

.PHONY: test-image
test-image: ## an image with Python and the tests' workers, for tests with containers (ENGINE=podman)
	@scripts/test-image.sh

.PHONY: test
test: setup ## all tests, against a real nats-server (ARGS='-p broker', ARGS=name)
	cargo build --workspace
	@# For tests with containers: a static shim, beside it the mozart of the images, and an image with Python.
	@if (. scripts/engine.sh) 2>/dev/null; then \
		(set -x; $(STATIC) -p supervisor -p worker-shim); \
		scripts/test-image.sh || { \
			[ "$${CI:-}" != true ] || exit 1; \
			echo 'NO IMAGE FOR TESTS, for the reason above: what needs it is skipped, or runs in an older one; with CI=true this fails' >&2; \
		}; \
	else \
		echo 'NO CONTAINER ENGINE ANSWERS: what needs one is skipped, or fails where CI=true' >&2; \
	fi
	@# For tests of the web page.
	@scripts/setup.sh browser || { \
		[ "$${CI:-}" != true ] || exit 1; \
		echo 'NO BROWSER FOR TESTS, for the reason above: what needs it is skipped; with CI=true this fails' >&2; \
	}
	$(TEST_ENV) cargo nextest run --workspace $(ARGS)

.PHONY: screenshot
screenshot: setup ## docs/page.png, the picture of the web page in the README, from a fleet that runs
	@scripts/setup.sh browser
	cargo build --workspace
	$(TEST_ENV) CI=true cargo nextest run -p system-tests -E 'test(=page_picture::the_fleet_is_pictured)'
	install -m 644 target/page/page.png docs/page.png

.PHONY: test-podman
test-podman: setup ## the seed's rows and the chaos campaign with podman, where it is installed
	cargo build --workspace
	$(STATIC) -p worker-shim
	$(TEST_ENV) scripts/test-podman.sh $(ARGS)

.PHONY: check
check: fmt clippy docs house deny ## formatting, lints, docs, the rules of the house, dependencies

.PHONY: fmt
fmt:
	cargo fmt --all --check

.PHONY: clippy
clippy:
	cargo clippy --workspace --all-targets --all-features -- -D warnings

.PHONY: docs
docs:
	RUSTDOCFLAGS='-D warnings' cargo doc --quiet --workspace --no-deps

.PHONY: house
house:
	@scripts/house.sh

.PHONY: deny
deny:
	@scripts/setup.sh deny
	cargo deny --all-features check bans licenses sources

.PHONY: audit
audit: ## known flaws of the dependencies (fetches the advisory database)
	@scripts/setup.sh deny
	cargo deny --all-features check advisories

.PHONY: sim
sim: setup ## the control core in a seeded, hostile world (SEED=7 RUNS=1000)
	MOZART_SIM_SEED='$(SEED)' MOZART_SIM_RUNS='$(RUNS)' \
		cargo nextest run --release -p supervisor-core --no-capture --test simulation $(ARGS)

.PHONY: chaos
chaos: setup build ## kills everything at random, then audits the journal (SECONDS=60 SEED=7 ARGS='--servers 3 --freeze 15 --garbage')
	$(STATIC) --release -p system-tests --bin mozart-chaos
	@install -m 755 target/$(HOST)/release/mozart-chaos target/release/
	$(TEST_ENV) MOZART_TEST_SHIM='$(CURDIR)/target/release/mozart-shim' \
		target/release/mozart-chaos --seconds '$(SECONDS)' $(if $(SEED),--seed '$(SEED)') $(ARGS)

.PHONY: chaos-skew
chaos-skew: setup ## the same with wall clocks that are an hour off; a debug build, since static binaries keep the machine's
	cargo build --workspace
	$(TEST_ENV) target/debug/mozart-chaos --skew --seconds '$(SECONDS)' $(if $(SEED),--seed '$(SEED)') $(ARGS)

.PHONY: bench
bench: setup build ## Mozart beside a raw loop and stdio + SQLite (ARGS='-o json')
	$(STATIC) --release -p system-tests --bin mozart-bench
	@install -m 755 target/$(HOST)/release/mozart-bench target/release/
	$(TEST_ENV) target/release/mozart bench $(ARGS)
