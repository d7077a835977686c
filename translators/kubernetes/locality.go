// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"cmp"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"fairlead.io/fairlead/model"
)

// Istio's labels by which a pod says where it is, "region.zone.subzone" (a value has no
// slashes); the second is that of old.
const (
	localityLabel    = "topology.istio.io/locality"
	oldLocalityLabel = "istio-locality"
)

// nodeLocality is where a node's labels say that it is.
func nodeLocality(labels map[string]string) model.Locality {
	return model.Locality{
		Region:  cmp.Or(labels[model.TopologyRegion], labels[corev1.LabelFailureDomainBetaRegion]),
		Zone:    cmp.Or(labels[model.TopologyZone], labels[corev1.LabelFailureDomainBetaZone]),
		SubZone: labels[model.TopologySubZone],
	}
}

// podLocality is where a pod says that it is, if elsewhere than its node.
func podLocality(labels map[string]string) model.Locality {
	said, ok := labels[localityLabel]
	if !ok {
		said = labels[oldLocalityLabel]
	}
	if !strings.Contains(said, "/") {
		said = strings.ReplaceAll(said, ".", "/")
	}
	parts := append(strings.SplitN(said, "/", 3), "", "")
	return model.Locality{Region: parts[0], Zone: parts[1], SubZone: parts[2]}
}
