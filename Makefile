# `make` alone says what there is.

SHELL := /bin/sh
.DEFAULT_GOAL := help
INSTALL := ./deploy/local/install.sh
export RUST_BACKTRACE ?= 1
# Tests mostly wait: for leases, limits and servers that start again.
export RUST_TEST_THREADS ?= $(shell echo $$(($$(nproc) * 3 / 2)))

## demo         build, then watch a fleet collect 4,200 fares at exactly the allowed speed for two minutes
.PHONY: demo
demo: install
	cargo build --release --bin producer --bin worker --bin simulator --bin demo
	./target/release/demo $(ARGS)

## test         everything: format, lints, docs, unit, property and end-to-end tests on real servers
.PHONY: test
test: install fmt clippy doc
	cargo build --workspace --bin producer --bin worker --bin simulator
	cargo test --workspace --tests

## stack        start private RabbitMQ, Redis, S3 and Elasticsearch, print the environment, stay up
.PHONY: stack
stack: install
	cargo build --bin stack
	./target/debug/stack up

## stack-down   end the servers of `make stack`, from another terminal
.PHONY: stack-down
stack-down:
	cargo build --quiet --bin stack
	./target/debug/stack down

## build        the release binaries
.PHONY: build
build:
	cargo build --release --workspace --bins

## fuzz         the fuzz targets (spec files, answers, templates), each for SECONDS=60; FUZZ="json xml" for some of them
SECONDS ?= 60
.PHONY: fuzz
fuzz:
	SECONDS_EACH=$(SECONDS) FUZZ="$(FUZZ)" ./protocol/fuzz/run.sh

## check-deploy schemas and linters of deploy/ and .github/ (from PyPI, in target/)
.PHONY: check-deploy
check-deploy:
	./deploy/check.sh

## dist         the binaries that are shipped, man pages, shell completions and the bill of materials in target/dist
.PHONY: dist
dist:
	cargo build --profile shipped --workspace --bin producer --bin worker
	cargo build --release --workspace --examples
	rm -rf target/dist && mkdir -p target/dist/bin
	./target/release/examples/producer-pages target/dist
	./target/release/examples/worker-pages target/dist
	./target/release/examples/sbom target/dist/paceline.cdx.json
	cp target/shipped/producer target/shipped/worker target/dist/bin/
	cp README.md README.ko.md CHANGELOG.md LICENSE target/dist/

## fmt          check the format (`cargo fmt --all` sets it right)
.PHONY: fmt
fmt:
	cargo fmt --all -- --check

## clippy       lints, warnings are errors
.PHONY: clippy
clippy:
	cargo clippy --workspace --all-targets -- -D warnings

## doc          the API's documentation, warnings are errors
.PHONY: doc
doc:
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items

## metrics      write deploy/METRICS.md and deploy/rights/ from what the programs register and the example jobs
.PHONY: metrics
metrics:
	UPDATE_DOCS=1 cargo test --workspace --lib -- the_table_of_the_documents the_files_are_those

## bench-limits bench-cost bench-bodies bench-orders bench-load bench-plan bench-changes bench-audit bench-faults bench-redis bench-peers bench-page bench-api   the numbers of loadtest/README.md; PROFILE=shipped measures what is shipped
PROFILE ?= release
.PHONY: bench-limits bench-cost bench-bodies bench-orders bench-load bench-plan bench-changes bench-audit bench-faults bench-redis bench-peers bench-page bench-api
bench-limits bench-cost bench-bodies bench-orders bench-load bench-plan bench-changes bench-audit bench-faults bench-redis bench-peers bench-page bench-api: install
	cargo build --profile $(PROFILE) --bin producer --bin worker --bin simulator --bin $@
	./target/$(PROFILE)/$@ $(if $(JOB),--job $(JOB)) $(ARGS)

## install      the Debian packages and Elasticsearch, where missing
.PHONY: install
install:
	@$(INSTALL)

## clean        remove what was built
.PHONY: clean
clean:
	cargo clean

.PHONY: help
help:
	@sed -n 's/^## /  make /p' Makefile
