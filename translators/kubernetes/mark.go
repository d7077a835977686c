// SPDX-License-Identifier: Apache-2.0

package kubernetes

import "fairlead.io/fairlead/translators/objects"

// CaptureField is the field of a namespace or pod by which its pods' connections are
// taken, or left alone; "" if it has none.
func CaptureField(o *objects.Object) (field string, on bool) {
	for _, m := range marks {
		for i, set := range []map[string]string{o.Labels, o.Annotations} {
			v, ok := set[m.key]
			if !ok {
				continue
			}
			if on, known := m.says(v); known {
				return []string{"metadata.labels", "metadata.annotations"}[i] + `["` + m.key + `"]`, on
			}
		}
	}
	return "", false
}
