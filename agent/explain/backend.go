// SPDX-License-Identifier: Apache-2.0

package explain

import "slices"

// Backend is where one of its clusters leads, as trace.Backends has it; the cluster's name
// if it is none of the frontend's.
func (f *Frontend) Backend(cluster string) string {
	if i := slices.IndexFunc(f.Clusters, func(c Cluster) bool { return c.Name == cluster }); i >= 0 {
		return f.Clusters[i].Backend
	}
	return cluster
}
