#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Prints deploy/fairlead.yaml: what the chart renders with its defaults, and the namespace.
#
#   hack/manifests.sh >deploy/fairlead.yaml
set -euo pipefail
cd "$(dirname "$0")/.."
cat <<'END'
# SPDX-License-Identifier: Apache-2.0
# Fairlead with the defaults of its chart, for kubectl apply. Made by hack/manifests.sh.
---
apiVersion: v1
kind: Namespace
metadata:
  name: fairlead-system
  labels:
    app.kubernetes.io/name: fairlead
    # Agents and proxies are in the nodes' network.
    pod-security.kubernetes.io/enforce: privileged
END
"$(hack/helm.sh)" template fairlead deploy/chart --namespace fairlead-system --no-hooks --kube-version 1.34 |
	sed 's/^\( *app.kubernetes.io\/managed-by:\) Helm$/\1 kubectl/' # Helm knows nothing of them
