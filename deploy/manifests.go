// SPDX-License-Identifier: Apache-2.0

package deploy

import _ "embed"

// Manifests are what the chart renders with its defaults, for "fairlead install"; see
// hack/manifests.sh.
//
//go:embed fairlead.yaml
var Manifests []byte
