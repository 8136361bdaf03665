# tapbridge: `make help` lists the targets.
SHELL := /bin/bash
.DELETE_ON_ERROR:

VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
GUEST    ?= netstack
ARCH     ?= $(shell go env GOARCH)
IMAGE    ?= localhost/tapbridge:dev
FUZZTIME ?= 10s

export CGO_ENABLED ?= 0
export GOFLAGS ?= -buildvcs=false

.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 18

.PHONY: build
build: ## bin/tapbridge and bin/tapbridge-agent, static and stripped
	go build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/ ./cmd/tapbridge ./cmd/tapbridge-agent

# What goes into the image has the time of its commit, so that the same source makes the same image. The store of buildah is a
# temporary one: nothing but the archive is left behind.
ARCHIVE = bin/tapbridge-image$(if $(filter-out $(shell go env GOHOSTARCH),$(ARCH)),-$(ARCH)).tar
DATE   ?= $(or $(shell git log -1 --format=%ct 2>/dev/null),0)

.PHONY: image
image: buildah ## bin/tapbridge-image.tar, an OCI archive (with buildah, without a network; ARCH=arm64 for another machine)
	for program in tapbridge tapbridge-agent; do \
		GOARCH=$(ARCH) go build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/$$program-$(ARCH) ./cmd/$$program || exit; \
	done
	rm -f $(ARCHIVE)
	store=$$(mktemp -d) && trap 'rm -rf "$$store"' EXIT && \
	buildah --root "$$store/root" --runroot "$$store/run" --storage-driver vfs build --isolation chroot --quiet \
		--arch $(ARCH) --build-arg TARGETARCH=$(ARCH) --timestamp $(DATE) --tag oci-archive:$(ARCHIVE):$(IMAGE) .

.PHONY: buildah
buildah:
	@command -v buildah >/dev/null || { apt-get -qq update && apt-get -qq install -y --no-install-recommends buildah; }

.PHONY: test
test: tools build ## all tests, on the real kernel in network namespaces of their own (as root)
	go vet ./...
	go test -p 3 -parallel 6 ./... # more than there are CPUs: most of them wait for the kernel
	cd test && go vet ./... && TAPBRIDGE_TEST_QEMU=1 go test -count=1 -p 3 -timeout 30m ./kernel $$(go list ./... | grep -Ev '/(bandwidth|kernel)$$') # the longest first
	cd test && go test -count=1 ./bandwidth # alone: it measures rates
	cd test/deploy && go vet ./... && go test -count=1 ./...
	cd test/bench && go vet ./... && go test -count=1 ./...

.PHONY: race
race: tools ## the same under the race detector (needs gcc)
	CGO_ENABLED=1 go test -race ./...
	cd test && CGO_ENABLED=1 go test -count=1 -timeout 30m -race ./conformance -skip '^TestFaults$$'

.PHONY: e2e
e2e: buildah ## the built plugin under containerd, CRI-O, kubelet and Multus, with Linux guests in pods (as root; builds those first)
	cd test/e2e && go vet ./... && TAPBRIDGE_TEST_REQUIRE=all go test -count=1 -timeout 45m -v .

.PHONY: faults
faults: tools build ## fail and kill at every system call of every verb; five minutes of verbs, a thousand of an agent's lives at random (as root)
	TAPBRIDGE_FAULTS=all go test -count=1 -v -timeout 1h ./cmd/tapbridge-agent -run '^TestKilledAtRandom$$'
	cd test && TAPBRIDGE_FAULTS=all go test -count=1 -v -timeout 2h ./conformance -run '^Test(Faults|Storm)$$'

.PHONY: fuzz
fuzz: ## every fuzz target, FUZZTIME (10s) each
	@set -e; for file in $$(grep -rlE '^func Fuzz' --include='*_test.go' internal pkg); do \
		for target in $$(sed -n 's/^func \(Fuzz[A-Za-z]*\).*/\1/p' $$file); do \
			go test ./$$(dirname $$file) -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME); \
		done; \
	done

.PHONY: sbom
sbom: build ## bin/*.spdx.json: what is in each binary, by its own build info
	cd test && for program in tapbridge tapbridge-agent; do \
		go run ./sbom ../bin/$$program > ../bin/$$program.spdx.json || exit; \
	done

.PHONY: vulnerabilities
vulnerabilities: ## govulncheck; needs the network for its database
	go run golang.org/x/vuln/cmd/govulncheck@v1.1.4 ./...

.PHONY: bench
bench: tools ## the plugin beside its peers: docs/benchmarks.md (as root, on an idle machine; QUICK=1: a minute)
	cd test/bench && TAPBRIDGE_BENCH=$(if $(QUICK),quick,full) go test -count=1 -timeout 30m -v -run '^TestReport$$' .

.PHONY: demo
demo: build ## two guests on one bridge: ping, TCP, flooding, spoofing, clean-up (as root; GUEST=qemu boots Linux)
	cd test && go build -o ../bin/demo ./demo
	bin/demo -guest $(GUEST)

.PHONY: lint
lint: ## gofumpt, staticcheck, errorlint
	cd test && go build -o ../bin/ honnef.co/go/tools/cmd/staticcheck github.com/polyfloyd/go-errorlint mvdan.cc/gofumpt
	@unformatted=$$(bin/gofumpt -l cmd internal pkg test); test -z "$$unformatted" || { echo "gofumpt -w $$unformatted"; exit 1; }
	bin/staticcheck ./... && bin/go-errorlint ./...
	cd test && ../bin/staticcheck ./... && ../bin/go-errorlint ./...
	cd test/deploy && ../../bin/staticcheck ./... && ../../bin/go-errorlint ./...
	cd test/e2e && ../../bin/staticcheck ./... && ../../bin/go-errorlint ./...
	cd test/bench && ../../bin/staticcheck ./... && ../../bin/go-errorlint ./...

# What the tests call besides Go: iproute2 is on every node, the rest comes from
# Debian's packages.
.PHONY: tools
tools:
	@for t in ip:iproute2 strace:strace nft:nftables; do \
		command -v $${t%%:*} >/dev/null || packages="$$packages $${t##*:}"; \
	done; \
	if [ -n "$$packages" ]; then apt-get -qq update && apt-get -qq install -y --no-install-recommends $$packages; fi

.PHONY: clean
clean: ## remove what was built
	rm -rf bin
