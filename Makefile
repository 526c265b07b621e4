# Every target works from a fresh clone on Debian 12 with Go and Python's pip, as root or
# as a plain user; what is fetched is pinned, checksummed and cached in the user's cache.

GO       ?= go
BIN      := bin
EXAMPLE  := install/examples/shop/heddle.yaml
FUZZTIME ?= 60s
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

.PHONY: cluster-deps cluster-build cluster-up cluster-down e2e-k8s bench-k8s help run down test parts check lint race bench fuzz build envoy generate generate-check envoy-check image images clean

help: ## Show what there is to make
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 18

run: build ## Start the example shop and print the addresses to open
	$(BIN)/heddle up -f $(EXAMPLE) --detach --wait

down: ## Stop the example shop
	$(BIN)/heddle down -f $(EXAMPLE)

test: build parts ## Run all tests, with real Envoys, nginx, PostgreSQL and Jaeger
	$(GO) test -count=1 -timeout 20m ./... # end to end they build programs that the test cache knows nothing of

check: lint generate-check race envoy-check ## What CI checks beside the tests

lint: ## gofmt, vet, staticcheck, imports
	@unformatted="$$(gofmt -l $$($(GO) list -f '{{.Dir}}' ./...))"; \
	  if [ -n "$$unformatted" ]; then echo "not gofmt'ed:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(GO) vet -tags k8s ./...
	$(GO) run $(STATICCHECK) ./...
	$(GO) test -count=1 .

race: envoy ## The tests under the race detector
	$(GO) test -race -short -timeout 20m ./...

envoy-check: envoy ## Let Envoy judge every golden
	$(GO) test -count=1 -run Golden ./controlplane/... ./proxy/bootstrap/...

cluster-deps: ## Install what a test cluster needs of Debian, as root
	tools/cluster-deps.sh

cluster-build: ## Build Kubernetes, etcd and CoreDNS, once: a quarter of an hour
	$(GO) run ./integration/cluster/heddle-cluster build

cluster-up: cluster-deps ## Boot a Kubernetes of three nodes; kubectl: bin/heddle-cluster in kubectl ...
	$(GO) build -o $(BIN)/ ./integration/cluster/heddle-cluster
	$(BIN)/heddle-cluster up

e2e-k8s: cluster-deps envoy ## Test Heddle on a Kubernetes of three nodes, and with an API server alone
	$(GO) build -o $(BIN)/ ./integration/cluster/heddle-cluster
	$(BIN)/heddle-cluster link $(BIN)/kube
	HEDDLE_KUBE_BIN=$(CURDIR)/$(BIN)/kube $(GO) test -tags k8s -count=1 -p 1 -timeout 40m ./cmd/heddle ./discovery/kubernetes/... ./integration/kubernetes/... ./install/kubernetes/... ./integration/cluster ./integration/k8s/...

bench-k8s: cluster-deps envoy ## Measure on a Kubernetes of three nodes; see integration/bench/RESULTS.md
	$(GO) test -tags k8s -run '^$$' -bench . -benchtime 1x -timeout 40m ./integration/k8s

cluster-down: ## End it
	$(BIN)/heddle-cluster down

bench: build envoy ## Measure; see integration/bench/RESULTS.md
	tools/bench.sh

fuzz: ## Run every fuzz target for FUZZTIME
	tools/fuzz.sh $(FUZZTIME)

build: ## Build bin/heddle and the programs of the example
	@mkdir -p $(BIN)
	CGO_ENABLED=0 $(GO) build -trimpath -o $(BIN)/ ./cmd/... ./install/examples/...

image: build envoy ## Write the image of Heddle, bin/heddle-image.tar
	$(GO) run ./install/image/heddle-image

images: build parts ## Write the images of Heddle, the example shop and Jaeger to bin/images
	$(GO) run ./install/image/heddle-image --all $(BIN)/images

parts: ## Fetch Envoy, nginx and PostgreSQL, and build Jaeger (some minutes, once)
	@$(GO) run ./cmd/heddle parts fetch envoy nginx postgres jaeger

envoy: ## Fetch the pinned Envoy, unless HEDDLE_ENVOY names one
	@$(GO) run ./cmd/heddle parts fetch envoy

generate: ## Make the generated code again
	tools/generate.sh

generate-check: ## Fail if the generated code is not what 'make generate' makes
	tools/generate.sh --check

clean: ## Remove what was built here; the cache stays
	rm -rf $(BIN)
