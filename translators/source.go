// SPDX-License-Identifier: Apache-2.0

package translators

import (
	"fairlead.io/fairlead/model"
	"fairlead.io/fairlead/model/incr"
	"fairlead.io/fairlead/translators/objects"
)

// ObjectOf is the object that a source names, as it is in the tables now; nil if it is
// not there, or of no kind that is read.
func ObjectOf(t interface {
	Get(t incr.Table, key string) any
	Registry() *objects.Registry
}, s model.Source) *objects.Object {
	key := s.Name
	if s.Namespace != "" {
		key = s.Namespace + "/" + s.Name
	}
	for _, k := range t.Registry().Kinds() {
		if k.Kind != s.Kind {
			continue
		}
		if o, ok := t.Get(Objects(k), key).(*objects.Object); ok {
			return o
		}
	}
	return nil
}
