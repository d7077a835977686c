// SPDX-License-Identifier: Apache-2.0

// Package deploy holds what a cluster is given before or beside Fairlead's own pods.
package deploy

import "embed"

// CRDs are the CustomResourceDefinitions of SMI, a file each, below crds/. Who installs
// them leaves one that a cluster has already as it is: see translators/smi/README.md.
//
//go:embed crds/*.yaml
var CRDs embed.FS
