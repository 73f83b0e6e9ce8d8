# The commands a person types. `make` alone lists them.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
IMAGE ?= agent
# Tests wait more than they work.
THREADS = $(shell expr $$(nproc) + 1)
CONFORMANCE = (binary(conformance) | binary_id(hostel-docker::remote))
MAKEFLAGS += --no-print-directory

.PHONY: help build image demo test test-with-nextest test-many test-vm test-vm-docker bench lint lint-rust lint-layout lint-proto lint-shell fmt openapi clean install-deps

help: ## List what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## Build everything for daily use (release profile)
	cargo build --release --workspace

image: ## Build a container image, IMAGE=agent or agent-min, with the claude CLI in it
	@scripts/install-deps.sh --if-possible image
	@images/build.sh $(IMAGE)

demo: ## See it work: a daemon, a sandbox, what it cannot do, an agent's session, and a clean end
	@scripts/install-deps.sh --if-possible run
	@scripts/demo.sh

test: ## Run every test
	@scripts/install-deps.sh test
	cargo build --workspace --quiet
	@if command -v cargo-nextest >/dev/null; then \
		scripts/with-docker.sh $(MAKE) test-with-nextest; \
	else \
		scripts/with-docker.sh cargo test --workspace -- --test-threads $(THREADS); \
	fi

# The cases of the conformance suite share what each process of it prepares: one process is twice as fast as one each.
test-with-nextest:
	cargo nextest run --workspace --test-threads $(THREADS) --filterset 'not $(CONFORMANCE)'
	cargo test --workspace --test conformance --test remote -- --test-threads $(THREADS)
	cargo test --workspace --doc --quiet

test-many: ## Run the tests of crowds and of crashes at the size that a release wants
	@scripts/install-deps.sh test
	cargo build --workspace --quiet
	HOSTEL_TEST_MANY=1 scripts/with-docker.sh cargo test --workspace --test docker --test sessions -- --nocapture \
		whatever_dies warm_containers

test-vm: ## Run the jail's tests in a Debian virtual machine with systemd and cgroup v2
	@scripts/test-vm.sh jail

test-vm-docker: ## Run the Docker backend's tests in it, with containers whose root is capped
	@scripts/test-vm.sh docker

bench: ## Measure ours and the peers in one run
	@scripts/install-deps.sh bench
	@scripts/bench.sh

lint: lint-rust lint-layout lint-proto lint-shell ## Check format, clippy, the layout rules, the protos, the scripts

# Where Clippy is the compiler, as in .ci/run, building lints, and the tests run what was built for it.
lint-rust:
	cargo fmt --all --check
ifdef RUSTC_WORKSPACE_WRAPPER
	cargo build --workspace --all-targets --quiet
else
	cargo clippy --workspace --all-targets --quiet -- -D warnings
endif

lint-layout:
	cargo test --workspace --test layout --quiet

lint-proto:
	@cd proto && npm ci --silent --no-audit --no-fund --no-update-notifier && npx --no-install buf lint

lint-shell:
	@scripts/install-deps.sh lint
	@shellcheck --external-sources .ci/run $$(git ls-files '*.sh')

fmt: ## Format the Rust code
	cargo fmt --all

openapi: ## Write docs/openapi.json anew from the code
	HOSTEL_WRITE_OPENAPI=1 cargo test --quiet -p hostel-sessiond --test rest openapi

clean: ## Remove what was built, the virtual machine's image too
	cargo clean
	rm -rf .cache proto/node_modules

install-deps: ## Install with apt all that any of these uses
	@scripts/install-deps.sh all
