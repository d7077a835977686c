# SPDX-License-Identifier: Apache-2.0
GO ?= go
BIN := bin/fairlead

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.PHONY: build
build: ## build bin/fairlead
	$(GO) build -trimpath -ldflags "$$(hack/version.sh)" -o $(BIN) ./cmd/fairlead

.PHONY: setup
setup: ## install what the tests and the demo need (as root, on Debian)
	hack/setup.sh

.PHONY: demo
demo: setup build ## two nodes, an application, Istio to SMI and back under load
	hack/demo.sh

.PHONY: test
test: setup build ## run every test that no change may break (as root)
	hack/test.sh

.PHONY: chaos
chaos: setup build ## 10,000 changes and 100 kills under load, in full (as root)
	hack/chaos.sh

.PHONY: conformance-faults
conformance-faults: setup build ## every part of two nodes broken in turn, under load, in full (as root)
	hack/faults.sh

.PHONY: conformance-live
conformance-live: setup build ## cases, decision tables and storms on the lab, in full (as root)
	hack/conformance.sh

.PHONY: conformance-smi
conformance-smi: setup build ## SMI's decision table on the lab, its suite and table on a real Kubernetes (as root)
	hack/conformance.sh smi

.PHONY: conformance-alerts
conformance-alerts: ## see each alert of deploy/chart/alerts.yaml fire, by Prometheus' own engine
	cd conformance/alerts && $(GO) vet ./... && $(GO) test -count=1 ./...

.PHONY: conformance-linkerd
conformance-linkerd: setup build ## Linkerd's decision table on the lab (as root)
	hack/conformance.sh linkerd

.PHONY: conformance-istio
conformance-istio: setup ## the same requests through istiod's own code, both in Envoy (as root)
	hack/istio.sh

.PHONY: conformance-kubernetes
conformance-kubernetes: setup ## tests on a real Kubernetes, put up and taken away (as root)
	hack/kubernetes.sh

.PHONY: conformance-gateway
conformance-gateway: setup ## the Gateway API's own suite on a real Kubernetes (as root)
	hack/gateway.sh

.PHONY: cluster
cluster: setup ## put up a real Kubernetes with two nodes on this machine (as root); see hack/cluster
	hack/cluster/up.sh

.PHONY: cluster-down
cluster-down: ## take it away
	hack/cluster/down.sh

.PHONY: bench
bench: setup build ## run the benchmarks; ratios and counts go to docs/performance.md
	hack/bench.sh

.PHONY: bench-istio
bench-istio: ## run Fairlead beside istiod's own code, what each computes and sends
	hack/bench.sh ./conformance/istio/bench

.PHONY: bench-kubernetes
bench-kubernetes: setup ## what a big cluster costs, on a real Kubernetes, 20 minutes (as root)
	hack/kubernetes.sh scale

.PHONY: generate
generate: ## rebuild the eBPF objects (needs clang-19), the golden files and docs/reference
	$(GO) generate ./bpf/...
	$(GO) test ./translators/istio ./translators/smi ./translators/linkerd ./translators/gateway ./translators/kubernetes ./xds/render -update

.PHONY: lint
lint: ## check formatting, vet and cross-build
	hack/lint.sh

.PHONY: clean
clean: ## remove what was built
	rm -rf bin
